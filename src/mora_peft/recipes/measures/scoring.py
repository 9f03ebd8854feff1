"""Log-likelihoods of texts under a model, many at once and computed only where they are needed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mora_peft.recipes.decoding import Prompt, context_length, evaluating, prompt_ids

if TYPE_CHECKING:
    import torch
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

# A batch's logits are kept under so many rows of the vocabulary (0.2 GB for 49,000 words in bfloat16).
_MOST_POSITIONS = 2048
_MOST_TOKENS = 8192


def log_likelihoods(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", pairs: list[tuple[Prompt, str]], batch_size: int = 64
) -> list[float]:
    """The log-likelihood, in nats, of each completion after its prompt, summed over the completion's tokens.

    A prompt is a text, or messages for the tokenizer's chat template; one too long for the model loses its beginning.
    The end of the text after the completion is not counted. Completions of one token after the same prompt share one
    pass. Touches no random numbers and leaves the model in the mode that it was in.
    """
    import torch

    cut = [completion_ids(tokenizer, prompt, completion) for prompt, completion in pairs]
    room = context_length(model)
    inputs: dict[tuple[int, ...], list[int]] = {}
    for number, (before, after) in enumerate(cut):
        inputs.setdefault(tuple((before + after)[:-1][-room:]), []).append(number)
    found = [0.0] * len(pairs)
    with torch.no_grad(), evaluating(model):
        for rows in by_length(list(inputs), batch_size, _MOST_TOKENS):
            most = max(len(cut[number][1]) for row in rows for number in inputs[row])
            # Counted from the row's own end; the batch's positions are those of any row.
            needed = sorted({len(row) - back for row in rows for back in range(1, min(most, len(row)) + 1)})
            logits = logits_at(model, tokenizer, rows, needed)
            place = {position: index for index, position in enumerate(needed)}
            for row, scores in zip(rows, logits, strict=True):
                for number in inputs[row]:
                    after = cut[number][1][-len(row) :]
                    at = [place[position] for position in range(len(row) - len(after), len(row))]
                    chosen = torch.log_softmax(scores[at].float(), dim=-1)
                    found[number] = chosen.gather(1, torch.tensor(after, device=chosen.device)[:, None]).sum().item()
    return found


def completion_ids(
    tokenizer: "PreTrainedTokenizerBase", prompt: Prompt, completion: str
) -> tuple[list[int], list[int]]:
    """Tokens of a prompt and of its completion, cut as the trainer cuts them: where prompt and both together part."""
    before = prompt_ids(tokenizer, prompt)
    if isinstance(prompt, str):
        both = tokenizer(prompt + completion)["input_ids"]
    else:
        both = before + tokenizer(completion, add_special_tokens=False)["input_ids"]
    # The last token is always the completion's, and the first never: nothing predicts it.
    shared = next(
        (index for index, pair in enumerate(zip(before, both, strict=False)) if pair[0] != pair[1]), len(before)
    )
    shared = min(shared, len(both) - 1)
    if shared == 0:
        return [tokenizer.eos_token_id], both
    return both[:shared], both[shared:]


def by_length(
    rows: list[tuple[int, ...]], batch_size: int, most: int = _MOST_POSITIONS
) -> Iterator[list[tuple[int, ...]]]:
    """`rows` of tokens in batches of like length, each of `batch_size` rows and `most` tokens with padding at most."""
    batch: list[tuple[int, ...]] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) == batch_size or len(row) * (len(batch) + 1) > most):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def logits_at(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: list[tuple[int, ...]], positions: list[int]
) -> "torch.Tensor":
    """Logits of shape (rows, positions, vocabulary) at the given positions of `rows`, counted from their start."""
    import torch

    batch = tokenizer.pad({"input_ids": [list(row) for row in rows]}, padding_side="right", return_tensors="pt").to(
        model.device
    )
    width = batch["input_ids"].shape[1]
    # Counted from the end, because prompt tuning puts vectors of its own before the row.
    keep = torch.tensor(positions, device=model.device) - width
    return model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=keep, use_cache=False
    ).logits
