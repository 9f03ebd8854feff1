"""General text: some to keep learning, against forgetting, and some to measure forgetting by.

Without any of the user's, it is what the base model itself answers to everyday questions, so that nothing has to be
downloaded: to go on answering them in the same way is to have forgotten nothing of that.
"""

from typing import TYPE_CHECKING

from mora_peft.recipes.data import load_texts
from mora_peft.recipes.decoding import greedy

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
]
_LONGEST = 48  # tokens of an answer


def general_rows(
    source: str | None, model: "Module", tokenizer: "PreTrainedTokenizerBase", tokens: int, count: int = 32
) -> tuple[list[dict[str, str]], list[str]]:
    """Rows to learn, and texts to measure forgetting on, none in both; of each `count` at most.

    They are cut from `source` (a file of rows or a folder of texts), or written by `model`, the base.
    """
    if source is not None:
        texts = [" ".join(text.split()) for text in load_texts(source)["text"]]
        pieces = [_cut(tokenizer, text, tokens) for text in texts[: 2 * count]]
        if len(pieces) < 2:
            half = len(texts[0]) // 2
            pieces = [texts[0][:half], texts[0][half:]]
        rows = [{"prompt": _first(piece), "completion": piece[len(_first(piece)) :]} for piece in pieces[1::2]]
        return [row | {"kind": "general", "document": ""} for row in rows if row["completion"].strip()], pieces[::2]
    prompts = [chat_prompt(tokenizer, task) for task in _TASKS]
    answers = greedy(model, tokenizer, prompts, min(_LONGEST, tokens), one_line=False)
    pairs = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer]
    rows = [
        {"prompt": prompt, "completion": answer, "kind": "general", "document": ""} for prompt, answer in pairs[1::2]
    ]
    return rows[:count], [prompt + answer for prompt, answer in pairs[::2]][:count]


def _cut(tokenizer: "PreTrainedTokenizerBase", text: str, tokens: int) -> str:
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:tokens])


def _first(text: str) -> str:
    """The first words of a text, by which it is asked to go on."""
    return " ".join(text.split(" ")[:3])
