"""The rows of a batch as one sequence without padding, in which each row sees itself alone, and what rows begin with
alike stands once.

Short questions behind a chat template are mostly template: SmolLM2's is 27 tokens, a question and its answer about 20.
"""

from typing import Any

import numpy as np
import torch

from .decoding import evaluating

SEES = "sees"  # (1, length, length), true where the row's token may look at the column's


class Together:
    """A collator for rows of `input_ids` and `labels`; the loss of its batches is that of the padded rows.

    Prompts form a tree: a token that two rows reach by the same way is there once, at the same position. What has a
    label, and the token before it, is each row's own, so that a label's logits stand directly before it.
    """

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, positions, labels, parents, places = [], [], [], [], {}
        for row in rows:
            shared = max(0, next((place for place, label in enumerate(row["labels"]) if label != -100), 1) - 1)
            parent = -1
            for position, (token, label) in enumerate(zip(row["input_ids"], row["labels"], strict=True)):
                place = places.get((parent, token)) if position < shared else None
                if place is None:
                    place = len(ids)
                    ids.append(token)
                    positions.append(position)
                    labels.append(label if position > shared else -100)
                    parents.append(parent)
                    if position < shared:
                        places[parent, token] = place
                parent = place
        sees = np.eye(len(ids), dtype=bool)
        for place, parent in enumerate(parents):
            if parent >= 0:
                sees[place] |= sees[parent]
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": torch.tensor([positions]),
            "labels": torch.tensor([labels]),
            SEES: torch.from_numpy(sees)[None],
        }


def as_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a model is given of a batch, be it of this collator or of TRL's: all but the labels."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", SEES)}
    return inputs | {"attention_mask": batch[SEES][:, None]} if SEES in batch else inputs


@torch.no_grad()
def can_stand_together(model: torch.nn.Module) -> bool:
    """Whether `model` keeps rows apart that a mask keeps apart: only models that attend, and to where they are told.

    It is tried on a few tokens, since models with a state, or with positions of their own, would mix rows silently.
    """
    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return False
    rows = [{"input_ids": ids, "labels": [-100, -100, -100, *ids[3:]]} for ids in ([1, 2, 3, 4, 5], [1, 2, 6, 7])]
    batch = {name: value.to(model.device) for name, value in Together()(rows).items()}
    with evaluating(model):
        both = model(**as_inputs(batch), use_cache=False).logits[0]
        alone = model(input_ids=torch.tensor([rows[1]["input_ids"]], device=model.device), use_cache=False).logits[0]
    return torch.allclose(both[-2:].float(), alone[-2:].float(), atol=0.05 * alone.float().std().item())
