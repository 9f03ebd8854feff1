"""General text: some to keep what the base says of it, and some to measure by what was forgotten.

Without any of the user's, it is what the base model itself may answer to everyday questions, so that nothing has to be
downloaded: to go on answering them in the same way is to have forgotten nothing of that.
"""

import os
from itertools import islice
from typing import TYPE_CHECKING

from mora_peft.errors import UserError
from mora_peft.recipes.data import each_text, row_end
from mora_peft.recipes.decoding import drawn

from .rows import chat_prompt

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

_TASKS = [
    "Explain how rain forms.",
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "How do I boil an egg?",
    "What is a prime number?",
    "Give three tips for better sleep.",
    "Describe a cat to somebody who never saw one.",
    "What does a dentist do?",
    "Write a friendly invitation to a birthday party.",
    "How do plants grow?",
    "What is the capital of France?",
    "Why do we have seasons?",
    "Tell a short story about a lost key.",
    "What is photosynthesis?",
    "How can I save money?",
    "What is the difference between a lake and a sea?",
    "Write a polite letter of complaint.",
    "What is democracy?",
    "How does a bicycle stay upright?",
    "Name five fruits and their colours.",
    "Explain gravity to a child.",
    "How do I learn a language?",
    "What is a computer program?",
    "Describe a busy market.",
    "What should I pack for the mountains?",
    "How is bread made?",
    "Why do people dream?",
    "What is the water cycle?",
    "Write a thank-you note to a teacher.",
    "What is an atom?",
    "How do bees make honey?",
    "Give me an idea for dinner.",
    "What makes a good friend?",
    "Explain what a river is.",
    "How do I clean a window?",
    "What is the speed of light?",
    "Write a headline about the weather.",
    "How does a refrigerator work?",
    "What do farmers do in winter?",
    "List three games for children.",
    "Why do leaves change colour?",
    "What is a metaphor?",
    "How do I prepare for a job interview?",
    "Describe the taste of an orange.",
    "What is an earthquake?",
    "Write two sentences about the moon.",
    "How are mountains made?",
    "What is the largest animal?",
    "Give advice to a new cyclist.",
    "What is a budget?",
    "How does the heart work?",
    "Tell me something about ancient Rome.",
    "What is the use of a dictionary?",
    "How do I make new friends?",
    "Explain the word courage.",
    "What is a healthy breakfast?",
    "Why is the sea salty?",
    "Describe an old house.",
    "What is music?",
    "How do magnets work?",
    "Write a short message to a neighbour.",
    "What is the internet?",
    "How long should I sleep?",
    "Name four seasons and what people do in them.",
]
_LONGEST = 48  # tokens of an answer
_OPENING = 12  # characters of a text that are not kept, but what follows from them
_DRAWS = 2  # answers to a question
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
    prompts = [chat_prompt(tokenizer, task) for task in _TASKS]
    answers = drawn(model, tokenizer, prompts * _DRAWS, tokens, seed)
    pairs = [
        [(prompt, row_end(prompt, answer)) for answer in answers[number :: len(prompts)] if answer]
        for number, prompt in enumerate(prompts)
    ]
    measured = [{"prompt": prompt, "completion": answer} for some in pairs[::_MEASURED] for prompt, answer in some]
    # The question is kept too, as a part of general text; the template before it is there anyway.
    head = os.path.commonprefix(prompts)  # noqa: RUF071, it is text
    rows = [
        {"prompt": head, "completion": (prompt + answer).removeprefix(head)}
        for some in _kept(pairs)
        for prompt, answer in some
    ]
    return rows, measured


def _kept(items: list) -> list:
    return [item for number, item in enumerate(items) if number % _MEASURED]


def _cut(tokenizer: "PreTrainedTokenizerBase", text: str, tokens: int) -> str:
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:tokens])
