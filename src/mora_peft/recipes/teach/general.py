"""General text: some to keep what the base says of it, and some to measure by what was forgotten.

Without any of the user's, it is what the base model itself may answer to everyday questions, so that nothing has to be
downloaded: to go on answering them in the same way is to have forgotten nothing of that.
"""

import os
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING

from mora_peft.errors import UserError
from mora_peft.recipes.data import each_text, row_end
from mora_peft.recipes.decoding import drawn

from .rows import chat_prompt

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

_LONGEST = 48  # tokens of an answer
_OPENING = 12  # characters of a text that are not kept, but what follows from them
_MEASURED = 4  # of so many texts, or questions, one measures


def general_rows(
    source: str | None, model: "Module", tokenizer: "PreTrainedTokenizerBase", tokens: int, seed: int, count: int = 64
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows to keep, and rows to measure forgetting on, none in both.

    They are cut from the first `count` texts of `source` (a file of rows or a folder of texts), or drawn by `seed` from
    `model`, the base. Rows that measure are texts, or prompts with the answers that were drawn.
    """
    if source is None:
        return _answered(model, tokenizer, min(_LONGEST, tokens), seed)
    texts = [" ".join(text.split()) for text in islice(each_text(source), count)]
    pieces = [_cut(tokenizer, text, tokens) for text in texts]
    if len(pieces) < 2:
        half = len(texts[0]) // 2
        pieces = [texts[0][:half], texts[0][half:]]
    rows = [{"prompt": piece[:_OPENING], "completion": piece[_OPENING:]} for piece in _kept(pieces)]
    rows = [row for row in rows if row["prompt"].strip() and row["completion"].strip()]
    if not rows:
        raise UserError(f"{source} holds too little text to keep: expected some of more than {_OPENING} characters.")
    return rows, [{"text": piece} for piece in pieces[::_MEASURED]]


def _answered(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", tokens: int, seed: int
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Everyday questions with what the base may answer.

    Drawn answers are a fair sample of what it knows to say, so what they lose in likelihood is what was forgotten; the
    one likeliest answer would say little of the rest.
    """
    questions = files("mora_peft.recipes.teach").joinpath("everyday.txt").read_text(encoding="utf-8").splitlines()
    prompts = [chat_prompt(tokenizer, question) for question in questions]
    answers = drawn(model, tokenizer, prompts, tokens, seed)
    pairs = [(prompt, row_end(prompt, answer)) for prompt, answer in zip(prompts, answers, strict=True) if answer]
    measured = [{"prompt": prompt, "completion": answer} for prompt, answer in pairs[::_MEASURED]]
    # The question is kept too, as a part of general text; the template before it is there anyway.
    head = os.path.commonprefix(prompts)  # noqa: RUF071, it is text
    rows = [{"prompt": head, "completion": (prompt + answer).removeprefix(head)} for prompt, answer in _kept(pairs)]
    return rows, measured


def _kept(items: list) -> list:
    return [item for number, item in enumerate(items) if number % _MEASURED]


def _cut(tokenizer: "PreTrainedTokenizerBase", text: str, tokens: int) -> str:
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:tokens])
