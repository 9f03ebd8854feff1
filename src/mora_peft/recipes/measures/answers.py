"""Answers to questions over financial tables: quantities with their scale, texts, and programs.

The rules follow TAT-QA (Zhu et al. 2021) and FinQA (Chen et al. 2021) in what counts as right: a quantity with its
scale, and what a program comes to. They are written anew here, so figures are not comparable to the third digit.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mora_peft.recipes.decoding import greedy

from .programs import run_program
from .texts import is_exact, normalized

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

_SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "m": 1e6, "mn": 1e6, "billion": 1e9, "bn": 1e9}
_QUANTITY = re.compile(
    r"""(?P<open>\()? (?P<sign>(?<!\d)[-−–+])? \s?(?:RMB|US\$|[$€£])?\s? (?P<late_sign>[-−–])?
        (?P<digits>\d{1,3}(?:,\d{3})+|\d+|(?=\.\d)) (?P<decimals>\.\d+)? (?P<close>\))?
        (?:\s?(?P<percent>%|per\ ?cent\b) | \s?(?P<scale>thousand|million|billion|bn|mn|k|m)s?\b)?""",
    re.VERBOSE | re.IGNORECASE,
)
_SEPARATORS = re.compile(r",\s+|;\s*|\s+and\s+")


@dataclass(frozen=True)
class Quantity:
    """A number as written: its value (of a percentage: in percent), the worth of its last digit, and its kind."""

    value: float
    step: float
    percent: bool = False


def table_answers(
    model: "Module",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    batch_size: int = 64,
    max_new_tokens: int = 48,
) -> tuple[dict[str, float], list[str]]:
    """`exact_match` and `f1` of greedy answers in one line, by `score_answer`; and the answers.

    `rows` have the columns prompt, answers (a list of texts) and scale (percent, thousand, million, billion or "").
    """
    answers = greedy(model, tokenizer, list(rows["prompt"]), max_new_tokens, batch_size)
    scores = [
        score_answer(answer, expected, scale)
        for answer, expected, scale in zip(answers, rows["answers"], rows["scale"], strict=True)
    ]
    exact, f1 = zip(*scores, strict=True)
    return {"exact_match": sum(exact) / len(exact), "f1": sum(f1) / len(f1)}, answers


def program_answers(
    model: "Module",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    batch_size: int = 64,
    max_new_tokens: int = 64,
) -> tuple[dict[str, float], list[str]]:
    """`exact_match` of what greedy programs come to, and `programs`, the share that could be run; and the answers.

    `rows` have the columns prompt (with the table) and answer (a number or a word, as a text). An answer that is no
    program is taken for the number itself, which may then be half a percent off.
    """
    answers = greedy(model, tokenizer, list(rows["prompt"]), max_new_tokens, batch_size)
    right, runs = 0, 0
    for answer, prompt, expected in zip(answers, rows["prompt"], rows["answer"], strict=True):
        result = run_program(answer, prompt)
        runs += result is not None
        right += is_right_result(answer if result is None else result, expected)
    return {"exact_match": right / len(answers), "programs": runs / len(answers)}, answers


def score_answer(answer: str, expected: list[str], scale: str = "") -> tuple[float, float]:
    """Exact match and F1, each 0 to 1, of a written answer against one expected text or several.

    Quantities are equal where they are to half of the expected one's last digit, each with its scale or as a
    percentage; several ones may stand in any order, a scale behind the last being that of all. Texts are compared by
    `normalized`, and their F1 is that of the words they share.
    """
    wanted = [_scaled(text, scale) for text in expected]
    if len(expected) == 1:
        [quantity] = wanted
        found = None if quantity is None else find_quantity(answer)
        exact = found is not None and is_equal(found, quantity) if quantity else is_exact(answer, expected)
    else:
        exact = _same_set(answer, expected, wanted)
    if exact or all(wanted):
        return float(exact), float(exact)
    return 0.0, word_f1(answer, " ".join(expected))


def is_right_result(result: float | str, expected: str) -> bool:
    """Whether what a program came to, or a text that was written instead of one, is the `expected` number or word."""
    try:
        number = float(expected)
    except ValueError:
        return isinstance(result, str) and is_exact(result, [expected])
    if not isinstance(result, str):
        return abs(result - number) <= 1e-5 * max(1.0, abs(number))
    found = find_quantity(result)
    return found is not None and is_equal(found, Quantity(number, max(1e-5, abs(number) / 100)))


def find_quantity(text: str) -> Quantity | None:
    """The first quantity in `text`; None where there is none."""
    found = _QUANTITY.search(text)
    return _quantity(found) if found else None


def parse_quantity(text: str) -> Quantity | None:
    """`text` as a quantity: a number with at most a sign, a currency, a scale or a per cent; None where it is none."""
    found = _QUANTITY.fullmatch(text.strip().rstrip("."))
    return _quantity(found) if found else None


def is_equal(found: Quantity, expected: Quantity) -> bool:
    """Whether `found` is `expected` to half of its last digit; 12 %, 12 and 0.12 say the same percentage."""
    values = [found.value]
    if expected.percent and not found.percent:
        values.append(found.value * 100)
    if found.percent and not expected.percent:
        values.append(found.value / 100)
    return any(abs(value - expected.value) <= expected.step / 2 + 1e-9 * abs(expected.value) for value in values)


def word_f1(answer: str, expected: str) -> float:
    """F1 of the words that `answer` shares with `expected`, both `normalized`."""
    said, wanted = normalized(answer).split(), normalized(expected).split()
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def _same_set(answer: str, expected: list[str], wanted: list[Quantity | None]) -> bool:
    if not all(wanted):
        # Parts may hold commas themselves, so the whole is compared too.
        parts = [normalized(part) for part in _SEPARATORS.split(answer)]
        return is_exact(answer, [" ".join(expected)]) or sorted(parts) == sorted(map(normalized, expected))
    found = list(_QUANTITY.finditer(answer))
    last = found[-1]["scale"] if found else None
    rest = [_quantity(part, last if part["scale"] is None else None) for part in found]
    for quantity in wanted:
        match = next((part for part in rest if is_equal(part, quantity)), None)
        if match is None:
            return False
        rest.remove(match)
    return not rest


def _scaled(text: str, scale: str) -> Quantity | None:
    """An expected text as a quantity with the scale that stands beside it."""
    return parse_quantity(f"{text} %" if scale == "percent" and "%" not in text else f"{text} {scale}".strip())


def _quantity(found: re.Match, scale: str | None = None) -> Quantity:
    decimals = found["decimals"] or ""
    times = _SCALES[(found["scale"] or scale).lower()] if found["scale"] or scale else 1.0
    value = float((found["digits"] or "0").replace(",", "") + decimals) * times
    minus = (found["sign"] or found["late_sign"] or "+") != "+" or bool(found["open"] and found["close"])
    return Quantity(-value if minus else value, times * 10.0 ** -max(0, len(decimals) - 1), bool(found["percent"]))
