"""Word documents by python-docx."""

from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import docx
from docx.opc.exceptions import PackageNotFoundError
from docx.table import Table

from mora_peft.recipes.teach.documents import Block

from . import Unreadable


def read(file: Path, note: Callable[[str], None]) -> list[Block]:
    """Headings by their style, paragraphs and tables, in order; running heads are no part of a Word file's body."""
    try:
        document = docx.Document(str(file))
    except (PackageNotFoundError, BadZipFile, KeyError, ValueError) as error:
        raise Unreadable("it is damaged, or no Word document; save it as .docx anew") from error
    blocks, caption = [], ""
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            rows = tuple(tuple(" ".join(cell.text.split()) for cell in row.cells) for row in item.rows)
            blocks.append(Block("table", caption, rows=rows))
            continue
        text, style = " ".join(item.text.split()), (item.style.name or "") if item.style is not None else ""
        if not text:
            continue
        if style == "Title" or style.startswith("Heading"):
            level = int(style[-1]) if style[-1].isdigit() else 1
            caption = text
            blocks.append(Block("heading", text, level))
        else:
            blocks.append(Block("text", text))
    return blocks
