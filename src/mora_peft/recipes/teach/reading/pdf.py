"""PDF files by pypdf: paragraphs made of lines, without the lines that head and foot every page."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pypdf import PdfReader
from pypdf.errors import DependencyError

from mora_peft.recipes.teach.documents import Block

from . import Unreadable
from .faq import begins, pieces
from .text import joined

_END = re.compile(r"[.!?:;。！？：；]['\"»”’)]*$")


def read(file: Path, kind: str, note: Callable[[str], None]) -> list[Block]:
    """The text of all pages; a page without any is noted, and a file without any is a scan that cannot be read."""
    try:
        with file.open("rb") as opened:
            reader = PdfReader(opened)
            if reader.is_encrypted and not reader.decrypt(""):
                raise Unreadable("it is locked with a password; save it without one")
            pages = [page.extract_text() or "" for page in reader.pages]
    except DependencyError as error:
        raise Unreadable(f"a package is missing ({error}): pip install 'mora-peft[teach]'") from error
    empty = [number for number, page in enumerate(pages, start=1) if not page.strip()]
    if len(empty) == len(pages):
        raise Unreadable("its pages are pictures without text (a scan); run it through OCR first")
    if empty:
        note(f"pages without text, which may be scans: {', '.join(map(str, empty))}")
    lines = [[line.strip() for line in page.split("\n")] for page in pages]
    repeated = _repeated(lines)
    if all(_shape(line) in repeated for page in lines for line in page if line):
        repeated = set()  # pages that differ in numbers only
    if repeated:
        note(f"left out of every page: {'; '.join(sorted(repeated)[:3])}")
    kept = [[line for line in page if _shape(line) not in repeated] for page in lines]
    return _paragraphs([line for page in kept for line in page])


def _repeated(pages: list[list[str]]) -> set[str]:
    """The shapes of first and last lines that half of the pages share, and three at least: running heads and feet."""
    filled = [[line for line in page if line] for page in pages]
    edges = [{_shape(line) for line in (*page[:2], *page[-2:])} for page in filled if page]
    counts = Counter(shape for page in edges for shape in page)
    return {shape for shape, count in counts.items() if count >= max(3, len(edges) / 2)}


def _shape(line: str) -> str:
    """A line with its numbers taken out, so that `Page 3 of 9` is the same on every page."""
    return re.sub(r"\d+", "#", line)


def _paragraphs(lines: list[str]) -> list[Block]:
    """Lines as paragraphs: one ends at an empty line, or at the end of a sentence well before the right margin."""
    width = sorted(len(line) for line in lines if line)[int(0.9 * (sum(map(bool, lines)) - 1))]
    blocks, current = [], []

    def close() -> None:
        if not current:
            return
        text = joined(current)
        heading = len(current) == 1 and len(text) < 0.75 * max(width, 40) and not _END.search(text)
        if heading:
            blocks.append(Block("heading", text, 1 if not blocks else 2))
        else:
            blocks.extend(Block("text", piece) for piece in pieces(text))
        current.clear()

    for line in lines:
        if not line or begins(line, current):
            close()
        if not line:
            continue
        short = len(line) < 0.6 * width
        current.append(line)
        if short and (_END.search(line) or len(current) == 1):
            close()
    close()
    return blocks
