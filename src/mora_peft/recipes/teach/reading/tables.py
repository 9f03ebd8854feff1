"""Tables: CSV and TSV by Python's own reader, Excel by openpyxl."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

from mora_peft.recipes.teach.documents import Block

from . import Unreadable
from .text import decoded

MOST_ROWS = 5000


def read(file: Path, note: Callable[[str], None]) -> list[Block]:
    """A table a file, or a sheet; beyond `MOST_ROWS` rows they are left out, which is noted."""
    caption = file.stem.replace("_", " ").replace("-", " ").strip().capitalize()
    if file.suffix.lower() == ".xlsx":
        sheets = _sheets(file)
    else:
        sheets = {"": _lines(decoded(file, note), "\t" if file.suffix.lower() == ".tsv" else None)}
    blocks = [Block("heading", caption, 1)]
    for name, rows in sheets.items():
        filled = [row for row in rows if sum(map(bool, row)) > 1]
        if len(filled) > MOST_ROWS + 1:
            note(f"{len(filled) - MOST_ROWS - 1} rows beyond the first {MOST_ROWS} left out; split the table")
        if len(filled) > 1:
            told = f"{caption}, {name}" if name and len(sheets) > 1 else caption
            blocks.append(Block("table", told, rows=tuple(filled[: MOST_ROWS + 1])))
    return blocks


def _lines(text: str, delimiter: str | None) -> list[tuple[str, ...]]:
    if delimiter is None:
        try:
            delimiter = csv.Sniffer().sniff(text[:4096], ",;\t|").delimiter
        except csv.Error:
            delimiter = ","
    try:
        return [tuple(cell.strip() for cell in row) for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise Unreadable(f"it is no table of delimited text ({error})") from error


def _sheets(file: Path) -> dict[str, list[tuple[str, ...]]]:
    from zipfile import BadZipFile

    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except (InvalidFileException, BadZipFile, KeyError, ValueError) as error:
        raise Unreadable("it is damaged, or no Excel workbook; save it as .xlsx anew") from error
    return {
        sheet.title: [tuple(_cell(value) for value in row) for row in sheet.iter_rows(values_only=True)]
        for sheet in book.worksheets
    }


def _cell(value: object) -> str:
    """A cell as people write it: dates without a time of day, whole numbers without a point."""
    if value is None:
        return ""
    if hasattr(value, "strftime"):
        return f"{value:%Y-%m-%d}" if not getattr(value, "hour", 0) else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(str(value).split())
