"""Tables: CSV and TSV by Python's own reader, Excel by openpyxl."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mora_peft.recipes.teach.documents import Block

from . import Unreadable
from .text import decoded

MOST_ROWS = 5000

Note = Callable[[str], None]
Rows = list[tuple[str, ...]]


def read(file: Path, kind: str, note: Note) -> list[Block]:
    """A table a file, or a sheet; beyond `MOST_ROWS` rows they are left out, which is noted."""
    caption = file.stem.replace("_", " ").replace("-", " ").strip().capitalize()
    if kind == ".xlsx":
        sheets, missing = _sheets(file)
    else:
        sheets, missing = {"": _lines(decoded(file, note), "\t" if kind == ".tsv" else None)}, ""
    blocks = [Block("heading", caption, 1)]
    for name, rows in sheets.items():
        told = f"{caption}, {name}" if name and len(sheets) > 1 else caption
        blocks += _blocks(told, [row for row in rows if any(row)], note)
    if not any(block.kind == "text" or len(block.rows) > 1 for block in blocks):
        raise Unreadable(missing or "it holds no row below the names of its columns")
    if missing:
        note(missing)
    return blocks


def _blocks(caption: str, rows: Rows, note: Note) -> Iterator[Block]:
    """A table of all rows with several cells. A cell alone in its row is a text: a title, a remark, a list's item."""
    if len(rows) > MOST_ROWS + 1:
        note(f"{len(rows) - MOST_ROWS - 1} rows beyond the first {MOST_ROWS} left out; split the table")
    rows = rows[: MOST_ROWS + 1]
    single = [number for number, row in enumerate(rows) if sum(map(bool, row)) == 1]
    table = [row for number, row in enumerate(rows) if number not in set(single)]
    if single:
        note(f"rows with a single cell, read as text: {len(single)}")
    head = rows.index(table[0]) if table else len(rows)
    texts = [(number, Block("text", "".join(rows[number]))) for number in single]
    yield from (block for number, block in texts if number < head)
    if table:
        yield Block("table", caption, rows=tuple(table))
    yield from (block for number, block in texts if number > head)


def _lines(text: str, delimiter: str | None) -> Rows:
    if delimiter is None:
        try:
            delimiter = csv.Sniffer().sniff(text[:4096], ",;\t|").delimiter
        except csv.Error:
            delimiter = ","
    try:
        return [tuple(map(_cell, row)) for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise Unreadable(f"it is no table of delimited text ({error})") from error


def _sheets(file: Path) -> tuple[dict[str, Rows], str]:
    """The rows of all sheets by their names, and which formulas have no value, in words.

    A workbook holds of a formula the value that Excel last computed; one that another program wrote may hold none.
    """
    import openpyxl

    with file.open("rb") as opened:
        values = openpyxl.load_workbook(opened, read_only=True, data_only=True)
        written = openpyxl.load_workbook(opened, read_only=True)
        sheets: dict[str, Rows] = {}
        missing: list[str] = []
        for sheet, source in zip(values.worksheets, written.worksheets, strict=True):
            sheet.reset_dimensions()  # some programs write wrong ones
            source.reset_dimensions()
            rows = sheets[sheet.title] = []
            for cells, formulas in zip(sheet.iter_rows(values_only=True), source.iter_rows(), strict=True):
                row = tuple(map(_cell, cells))
                lost = [each.coordinate for each, cell in zip(formulas, row, strict=False) if _lost(each, cell)]
                missing += lost
                if not lost or sum(map(bool, row)) > 1:  # a name without what is told of it says nothing
                    rows.append(row)
    some = ", ".join(missing[:3]) + ", …" * (len(missing) > 3)
    told = f"formulas without a saved value: {len(missing)} ({some}); open it in Excel and save it, to have them read"
    return sheets, told if missing else ""


def _lost(written: Any, cell: str) -> bool:
    return written.data_type == "f" and not cell


def _cell(value: object) -> str:
    """A cell as people write it: dates without a time of day, whole numbers without a point."""
    if value is None:
        return ""
    if hasattr(value, "strftime"):
        return f"{value:%Y-%m-%d}" if not getattr(value, "hour", 0) else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(str(value).split())
