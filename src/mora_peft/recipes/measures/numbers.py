"""Numbers in texts: what a worked solution comes to, however it is written."""

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from mora_peft.recipes.decoding import greedy

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

# A minus is a sign unless it stands after a number or a bracket, where it subtracts or joins.
_NUMBER = re.compile(
    r"""(?P<sign>(?<![\w)\]])[-−–])? \s? [$€£]? \s? (?P<late_sign>(?<=[$€£])[-−])?
        (?:(?P<whole>\d+)\ (?=\d+/\d))?
        (?P<digits>\d{1,3}(?:,\d{3})+(?![\d]) | \d+ | (?=\.\d))
        (?P<decimals>\.\d+)?
        (?:/(?P<below>[1-9]\d*)(?![\d.]*\d))?""",
    re.VERBOSE,
)
_ANSWER = re.compile(r"answer\s*(?:is|:|=)", re.IGNORECASE)


def final_number(
    model: "Module",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    batch_size: int = 64,
    max_new_tokens: int = 256,
) -> tuple[dict[str, float], list[str]]:
    """`exact_match`: the share of greedy answers whose final number is that of the column `answer`; and the answers."""
    answers = greedy(model, tokenizer, list(rows["prompt"]), max_new_tokens, batch_size, False)
    right = [parse_final(answer) == parse_final(text) for answer, text in zip(answers, rows["answer"], strict=True)]
    return {"exact_match": sum(right) / len(right)}, answers


def parse_final(text: str) -> Fraction | None:
    """The number that a worked solution ends in, exactly; None where there is none.

    That is the first number after the first `####`, as GSM8K writes it; else the first one after the last "answer is"
    or "answer:"; else the last one of the text. Thousands are grouped by commas, signs and currencies may stand before
    a number and a unit or a full stop after it, and `1/2` and `2 1/2` are fractions.

    >>> parse_final("She pays 2 * $9 = $18.00 in all.")
    Fraction(18, 1)
    """
    if "####" in text:
        # What follows the line is another exercise, which a model that does not know when to stop makes up.
        return next(numbers(text.split("####")[1].split("\n")[0]), None)
    said = _ANSWER.split(text)
    if len(said) > 1 and (found := next(numbers(said[-1]), None)) is not None:
        return found
    return next(reversed(list(numbers(text))), None)


def numbers(text: str):
    """The numbers in `text`, in order, as fractions."""
    for found in _NUMBER.finditer(text):
        value = Fraction((found["digits"] or "0").replace(",", "") + (found["decimals"] or "")) / int(
            found["below"] or 1
        )
        value += int(found["whole"] or 0)
        yield -value if found["sign"] or found["late_sign"] else value
