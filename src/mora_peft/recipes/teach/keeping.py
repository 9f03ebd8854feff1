"""Against forgetting: what the base says of general text is held while the adapter beside it learns.

Learning without forgetting (Li & Hoiem 2016, section 3), with the base beneath the adapter as the teacher: no row tells
what to answer, but all of the base's probabilities for each next token, of which a row's own token is one draw.
"""

import random
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from mora_peft.recipes.adapters import beneath
from mora_peft.recipes.decoding import evaluating
from mora_peft.recipes.trainer import labelled_logits

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


class Keeping:
    """A loss beside the rows': how far the model has gone from its base on a few of `rows` a step, in turn.

    It is the sum over their completions' tokens of the Kullback-Leibler divergence from the base's distribution, in
    nats, times `weight`. `a_step` rows are taken at each step, on average.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        tokenizer: "PreTrainedTokenizerBase",
        a_step: float,
        weight: float = 1,
        seed: int = 0,
    ):
        self._rows = [labelled(tokenizer, row) for row in random.Random(seed).sample(rows, len(rows))]
        self._a_step, self._weight = a_step, weight
        self._together = DataCollatorForLanguageModeling(tokenizer.pad_token_id)

    def __call__(self, model: "Module", step: int) -> torch.Tensor | None:
        """The loss after `step` steps; None where it is no row's turn."""
        turns = range(int(step * self._a_step), int((step + 1) * self._a_step))
        if not turns or not self._rows:
            return None
        batch = self._together([self._rows[turn % len(self._rows)] for turn in turns])
        batch = {name: value.to(next(model.parameters()).device) for name, value in batch.items()}
        with torch.no_grad(), beneath(model), evaluating(model):
            base, targets = labelled_logits(model, batch)
        found, _ = labelled_logits(model, batch)
        counted = targets != -100
        return self._weight * torch.nn.functional.kl_div(
            found[counted].log_softmax(-1), base[counted].log_softmax(-1), log_target=True, reduction="sum"
        )


def labelled(tokenizer: "PreTrainedTokenizerBase", row: dict[str, Any]) -> dict[str, list[int]]:
    """A row as the trainer has it, but for the end of the text."""
    ids, prompt = tokenizer(row["prompt"] + row["completion"])["input_ids"], tokenizer(row["prompt"])["input_ids"]
    return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}
