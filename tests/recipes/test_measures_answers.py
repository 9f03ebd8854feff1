"""Parsers of written answers, by tables: numbers, quantities, programs, texts."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.recipes.measures import numbers, texts
from mora_peft.recipes.measures.answers import (
    Quantity,
    find_quantity,
    is_right_result,
    parse_quantity,
    score_answer,
    word_f1,
)
from mora_peft.recipes.measures.numbers import parse_final
from mora_peft.recipes.measures.programs import run_program
from mora_peft.recipes.measures.texts import is_exact, normalized, rouge_l

DATA = Path(__file__).parents[3] / "shared" / "data"
TABLE = "Table:\nyear | 2019 | 2018\nsales | $ 1,200 | 800 ( 5% )\nmargin | 12.5% | -3%\n\nQuestion: ?"


def real_rows(name: str) -> list[dict]:
    file = DATA / name
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    return [json.loads(line) for line in file.open(encoding="utf-8")]


@pytest.mark.parametrize(
    "text, number",
    [
        ("9 * 2 = 18\n#### 18", 18),
        ("#### 1,234", 1234),
        ("#### -7", -7),
        ("####12\n#### 13", 12),
        ("#### 5\nQuestion: 3 + 4?\n#### 7", 5),
        ("####", None),
        ("She pays $18.00", 18),
        ("-$1,000.50", Fraction(-2001, 2)),
        ("$-5", -5),
        ("12,345,678.90", Fraction(123456789, 10)),
        ("The answer is 5 apples.", 5),
        ("The answer is 5. There were 3 trees.", 5),
        ("Answer: 3\nin 2 days", 3),
        ("The answer is unclear, 4", 4),
        ("3/4", Fraction(3, 4)),
        ("2 1/2 cups", Fraction(5, 2)),
        ("about .5", Fraction(1, 2)),
        ("50%", 50),
        ("10-5", 5),
        ("7 - 3 = 4.", 4),
        ("x = −3", -3),
        ("1, 2", 2),
        ("1/0", 0),
        ("no number at all", None),
        ("", None),
    ],
)
def test_final_numbers(text, number):
    assert parse_final(text) == number


@given(st.integers(), st.integers(0, 99))
def test_a_number_is_read_however_it_is_written(whole, cents):
    value = abs(whole) + Fraction(cents, 100)
    value = -value if whole < 0 else value
    sign = "-" if whole < 0 else ""
    for text in (f"#### {sign}{abs(whole)}.{cents:02d}", f"It is {sign}${abs(whole):,}.{cents:02d}."):
        assert parse_final(text) == value


@given(st.text())
def test_no_text_breaks_the_parsers(text):
    parse_final(text), find_quantity(text), parse_quantity(text), run_program(text), normalized(text)


@pytest.mark.parametrize("name", ["gsm8k.train.jsonl", "gsm8k.test.jsonl", "gsm8k_part2.train.jsonl"])
def test_every_solution_of_gsm8k_is_read(name):
    for row in real_rows(f"math/{name}"):
        assert parse_final(row["completion"]) == Fraction(row["answer"]), row["id"]


def test_the_final_number_is_compared(monkeypatch):
    from datasets import Dataset

    rows = Dataset.from_dict({"prompt": ["a", "b", "c", "d"], "answer": ["18", "#### 5", "3", "4"]})
    monkeypatch.setattr(numbers, "greedy", lambda *_: ["#### 18.0", "It is 5 apples", "#### 4", "none"])
    assert numbers.final_number(None, None, rows)[0] == {"exact_match": 1 / 2}


@pytest.mark.parametrize(
    "program, result",
    [
        ("subtract(37.2, 31.9), divide(#0, 31.9)", (37.2 - 31.9) / 31.9),
        ("multiply(1.2, const_1000), add(#0, const_m1)", 1199.0),
        ("divide(50%, 2)", 0.25),
        ("greater(3, 2)", "yes"),
        ("table_sum(sales, none)", 2000.0),
        ("table_average(margin, none)", 4.75),
        ("table_max(profit, none)", None),
        ("divide(1, 0)", None),
        ("add(1, #4)", None),
        ("add(1)", None),
        ("exp(-1, 0.5)", None),
        ("power(1, 2)", None),
        ("I think add(1, 2)", None),
        ("add(1, 2) or so", None),
        ("12", None),
        ("", None),
    ],
)
def test_programs(program, result):
    assert run_program(program, TABLE) == (
        result if result is None or isinstance(result, str) else pytest.approx(result)
    )


@pytest.mark.parametrize("name", ["finqa.train.jsonl", "finqa.test.jsonl"])
def test_every_program_of_finqa_comes_to_its_answer(name):
    for row in real_rows(f"finance/{name}"):
        assert is_right_result(run_program(row["completion"], row["prompt"]), str(row["answer"])), row["id"]


@pytest.mark.parametrize(
    "result, expected, right",
    [
        (0.16614, "0.16614", True),
        (0.1662, "0.16614", False),
        ("yes", "yes", True),
        ("Yes.", "yes", True),
        ("no", "yes", False),
        (1.0, "yes", False),
        ("16.6%", "0.16614", True),
        ("0.1661", "0.16614", True),
        ("17%", "0.16614", False),
        ("nothing", "0.16614", False),
    ],
)
def test_results_of_programs(result, expected, right):
    assert is_right_result(result, expected) is right


@pytest.mark.parametrize(
    "text, quantity",
    [
        ("5,053", Quantity(5053, 1)),
        ("$46.4 million", Quantity(46.4e6, 1e5)),
        ("£59.1m", Quantity(59.1e6, 1e5)),
        ("RMB77 million", Quantity(77e6, 1e6)),
        ("-15.92%", Quantity(-15.92, 0.01, True)),
        ("29 per cent", Quantity(29, 1, True)),
        ("(1.6)", Quantity(-1.6, 0.1)),
        ("$ 19,694", Quantity(19694, 1)),
        ("+3.6%", Quantity(3.6, 0.1, True)),
        ("December 2021", None),
        ("", None),
    ],
)
def test_quantities(text, quantity):
    found = parse_quantity(text)
    assert (
        found == quantity
        if quantity is None
        else found == Quantity(pytest.approx(quantity.value), pytest.approx(quantity.step), quantity.percent)
    )


@pytest.mark.parametrize(
    "answer, expected, scale, exact",
    [
        ("0.9 million", ["0.9"], "million", 1),
        ("The change was $0.9 million.", ["0.9"], "million", 1),
        ("900,000", ["0.9"], "million", 1),
        ("0.9", ["0.9"], "million", 0),
        ("0.95 million", ["0.9"], "million", 1),  # half of the last digit
        ("0.96 million", ["0.9"], "million", 0),
        ("-15.92%", ["-15.92"], "percent", 1),
        ("-15.92", ["-15.92"], "percent", 1),
        ("-0.1592", ["-15.92"], "percent", 1),
        ("15.92%", ["-15.92"], "percent", 0),
        ("2019", ["2018"], "", 0),
        ("2018", ["2018"], "", 1),
        ("amer, EMEA and APAC", ["AMER", "APAC", "EMEA"], "", 1),
        ("AMER, APAC", ["AMER", "APAC", "EMEA"], "", 0),
        ("$5,092, $5,078 thousand", ["$5,092", "$5,078"], "thousand", 1),
        ("5,078 thousand, 5,092 thousand", ["$5,092", "$5,078"], "thousand", 1),
        ("5,092 thousand", ["$5,092", "$5,078"], "thousand", 0),
        ("5,092, 5,092 thousand", ["$5,092", "$5,078"], "thousand", 0),
        ("the total product revenues.", ["Total product revenues"], "", 1),
        ("", ["Total product revenues"], "", 0),
        ("", ["5"], "", 0),
    ],
)
def test_table_answers(answer, expected, scale, exact):
    assert score_answer(answer, expected, scale)[0] == exact


def test_texts_that_are_not_exact_have_the_f1_of_their_words():
    exact, f1 = score_answer("total revenues", ["Total product revenues"])
    assert exact == 0 and f1 == pytest.approx(2 * 2 / (2 + 3))
    assert score_answer("7", ["5"]) == (0, 0)  # a number is right or wrong


@given(st.text(), st.text())
def test_f1_is_symmetric_and_a_share(a, b):
    assert 0 <= word_f1(a, b) == word_f1(b, a) <= 1


@pytest.mark.parametrize("name", ["tatqa.train.jsonl", "tatqa.test.jsonl"])
def test_every_completion_of_tatqa_is_its_answer(name):
    for row in real_rows(f"finance/{name}"):
        assert score_answer(row["completion"], row["answer"], row["scale"]) == (1, 1), row["id"]


@pytest.mark.parametrize(
    "answer, accepted, value",
    [
        ("the cat sat on the mat", ["the cat sat on the mat"], 1),
        ("the cat sat", ["the cat sat on the mat"], 2 * 3 / (3 + 6)),
        ("mat the on sat", ["the cat sat on"], 2 * 2 / (4 + 4)),  # in order: "the on", or "the sat"
        ("dog", ["cat", "a dog"], 2 * 1 / (1 + 2)),  # the nearest one counts
        ("", ["cat"], 0),
        ("Cat!", ["cat"], 1),
    ],
)
def test_rouge_l_is_the_longest_common_subsequence(answer, accepted, value):
    assert rouge_l(answer, accepted) == pytest.approx(value)


def test_exact_match_is_of_the_rows_with_answers(monkeypatch):
    from datasets import Dataset

    assert is_exact("The answer, is: D.", ["answer is d"]) and not is_exact("E", ["D"])
    rows = Dataset.from_dict(
        {"prompt": ["a", "b", "c"], "accepted": [["D"], ["x", "y"], ["free text"]], "short": [True, True, False]}
    )
    monkeypatch.setattr(texts, "greedy", lambda *_: ["E", "y", "free text"])
    found, answers = texts.overlap(None, None, rows)
    assert found == {"rouge_l": pytest.approx(2 / 3), "exact_match": 1 / 2} and answers[1] == "y"
    assert "exact_match" not in texts.overlap(None, None, rows.map(lambda row: {"short": False}))[0]
