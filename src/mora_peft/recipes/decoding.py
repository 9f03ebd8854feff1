"""Greedy answers to many prompts at once, on a model of any method."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


def greedy(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", prompts: list[str], max_new_tokens: int, batch_size: int = 64
) -> list[str]:
    """What `model` writes after each prompt, up to the end of the line or of the text, by greedy decoding.

    The first token is never an end, so that a model which would rather go on in a new line gives an answer too.
    Prompts are padded on the left and decoded together, with a cache. Touches no random numbers and leaves the model
    in the mode (train or eval) that it was in.
    """
    import torch
    from transformers import GenerationConfig

    line_ends = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("\n", "\n\n")]
    ends = [tokenizer.eos_token_id, *(ids[0] for ids in line_ends if len(ids) == 1)]
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
        begin_suppress_tokens=ends,
    )
    answers = []
    with torch.no_grad(), _evaluating(model), _contiguous_head(model):
        for start in range(0, len(prompts), batch_size):
            batch = tokenizer(
                prompts[start : start + batch_size], padding=True, padding_side="left", return_tensors="pt"
            ).to(model.device)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            tokens = model.generate(**inputs, generation_config=settings)
            # Prompt tuning returns the new tokens after the prompt as well, whatever it puts before it.
            new = tokens[:, inputs["input_ids"].shape[1] :]
            answers += [
                text.strip().split("\n")[0].strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)
            ]
    return answers


@contextmanager
def _evaluating(model: "Module") -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _contiguous_head(model: "Module") -> Iterator[None]:
    """Give the output layer contiguous input.

    Generation hands it the last position of every prompt as a strided view, which torch's matmul on CPU answers with
    a copy of the whole vocabulary matrix per row: 13 s instead of 0.05 s for 64 prompts of SmolLM2 in bfloat16.
    """
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        handle.remove()
