"""Programs of FinQA (Chen et al. 2021): steps like `subtract(5, 3), divide(#0, 3)` over numbers and a table."""

import re

_STEP = re.compile(r"(\w+)\(([^()]*)\)")
_TWO = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "exp": lambda a, b: a**b,
    "greater": lambda a, b: "yes" if a > b else "no",
}
_ROW = {"table_sum": sum, "table_max": max, "table_min": min, "table_average": lambda values: sum(values) / len(values)}


def run_program(program: str, prompt: str = "") -> float | str | None:
    """What `program` comes to: a number, or yes or no; None where it is no program or cannot be run.

    Args:
        program: Steps with two arguments each, separated by commas: numbers (a percentage is a hundredth), constants
            (const_100, const_m1) or #n, the result of the step n; or a row of the table by its name.
        prompt: The text with the table: lines of cells separated by `|`, the first cell being the row's name.
    """
    results: list[float | str] = []
    end = 0
    try:
        for step in _STEP.finditer(program):
            if program[end : step.start()].strip(" ,"):
                return None
            end = step.end()
            operation, arguments = step[1], step[2].rsplit(", ", 1)
            if operation in _ROW:
                results.append(_ROW[operation](_row(arguments[0], prompt)))
            else:
                a, b = (_value(argument.strip(), results) for argument in arguments)
                results.append(_TWO[operation](a, b))
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError):
        return None
    return None if not results or isinstance(results[-1], complex) or program[end:].strip() else results[-1]


def _value(argument: str, results: list[float | str]) -> float | str:
    if argument.startswith("#"):
        return results[int(argument[1:])]
    if argument.startswith("const_"):
        return float(argument.removeprefix("const_").replace("m", "-"))
    return _number(argument)


def _number(text: str) -> float:
    text = text.replace("$", "").replace(",", "").replace(" ", "")
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def _row(name: str, prompt: str) -> list[float]:
    """The numbers of the row `name`; ValueError where there is no such row or no number in it."""
    for line in prompt.split("\n"):
        first, *cells = line.split("|")
        if cells and first.strip() == name.strip():
            # The first number of a cell, which may have a second one in brackets; percentages count in points here.
            found = [re.search(r"-?\s*\$?\s*-?[\d,]*\.?\d+", cell) for cell in cells]
            return [_number(match[0]) for match in found if match]
    raise ValueError(name)
