"""Word documents by python-docx, whose own walk leaves out what stands in boxes, content controls and insertions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docx
from docx.oxml import parse_xml
from docx.oxml.ns import qn
from docx.table import Table
from docx.text.paragraph import Paragraph

from mora_peft.recipes.teach.documents import Block

from .faq import pieces

_PARAGRAPH, _TABLE, _TEXT, _BOX = qn("w:p"), qn("w:tbl"), qn("w:t"), qn("w:txbxContent")
_SPACES = {qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:tab"): " "}
# A second copy of a box for old versions, and what was moved away.
_SKIPPED = {"{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback", qn("w:moveFrom")}


def read(file: Path, kind: str, note: Callable[[str], None]) -> list[Block]:
    """Headings by their style, paragraphs, boxes and tables in order, then the notes; running heads are noted."""
    with file.open("rb") as opened:
        document = docx.Document(opened)
    blocks = list(_blocks(document.element.body, document))
    running: list[str] = []
    for relation in document.part.rels.values():
        role = relation.reltype.rsplit("/", 1)[-1]
        if relation.is_external or role not in ("footnotes", "endnotes", "header", "footer", "comments"):
            continue
        notes = parse_xml(relation.target_part.blob)
        texts = [_text(item) for item in notes.iter(_PARAGRAPH)]
        if role in ("footnotes", "endnotes"):
            blocks += [Block("text", text) for text in texts if text]
        else:
            running += [text for text in texts if text]
    if running:
        note(f"left out, as headers, footers and comments are: {'; '.join(dict.fromkeys(running))[:200]}")
    return blocks


def _blocks(parent: Any, document: Any, caption: str = "") -> Iterator[Block]:
    for item in _items(parent):
        if item.tag == _TABLE:
            yield from _table(item, document, caption)
            continue
        text, level = _text(item, "\n"), _level(Paragraph(item, document))
        if level and text:
            caption = _text(item)
            yield Block("heading", caption, level)
        elif text:
            yield from (Block("text", " ".join(piece.split())) for piece in pieces(text))
        for box in (child for child in _below(item) if child.tag == _BOX):
            yield from _blocks(box, document, caption)


def _table(table: Any, document: Any, caption: str) -> Iterator[Block]:
    """A table and those inside its cells; one of a single column is a box around text."""
    rows = tuple(tuple(_cell(cell._tc) for cell in row.cells) for row in Table(table, document).rows)
    cells = [cell for row in table.tr_lst for cell in row.tc_lst]
    if max(map(len, rows), default=0) < 2:
        for cell in cells:
            yield from _blocks(cell, document, caption)
        return
    yield Block("table", caption, rows=rows)
    for inner in (item for cell in cells for item in _items(cell) if item.tag == _TABLE):
        yield from _table(inner, document, caption)


def _cell(cell: Any) -> str:
    return " ".join(filter(None, (_text(item) for item in _items(cell) if item.tag == _PARAGRAPH)))


def _level(paragraph: Paragraph) -> int:
    """The level of a heading, by its style; 0 of other paragraphs."""
    style = (paragraph.style.name or "") if paragraph.style is not None else ""
    if style != "Title" and not style.startswith("Heading"):
        return 0
    return int(style[-1]) if style[-1].isdigit() else 1


def _items(parent: Any) -> Iterator[Any]:
    """The paragraphs and tables below, none inside another."""
    for child in parent:
        if child.tag in (_PARAGRAPH, _TABLE):
            yield child
        elif child.tag not in _SKIPPED:
            yield from _items(child)


def _below(parent: Any) -> Iterator[Any]:
    """All elements of a paragraph, and of its boxes none but the outermost."""
    for child in parent:
        if child.tag in _SKIPPED:
            continue
        yield child
        if child.tag != _BOX:
            yield from _below(child)


def _text(paragraph: Any, line: str = " ") -> str:
    """The text of a paragraph, with `line` where a line is broken."""
    parts = [child.text or "" if child.tag == _TEXT else _SPACES.get(child.tag, "") for child in _below(paragraph)]
    return line.join(filter(None, (" ".join(part.split()) for part in "".join(parts).split("\n"))))
