"""A document as all formats are read into: blocks of headings, text, tables and questions, in reading order."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["heading", "text", "table", "question"]


@dataclass(frozen=True)
class Block:
    """A piece of a document.

    `text` is the heading, the paragraph, the table's caption or the question; `rows` are a table's cells, its head
    first, or the one cell that answers a question. `level` is a heading's, from 1.
    """

    kind: Kind
    text: str
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Document:
    """A file as it was read: its path within the folder, its title, and its blocks."""

    path: str
    title: str
    blocks: tuple[Block, ...]
    language: str = "en"

    def text(self) -> str:
        """All of it as plain text, a block a paragraph."""
        return "\n\n".join(plain(block) for block in self.blocks)


@dataclass
class Summary:
    """What became of every file, with the reason: nothing is dropped without an entry here."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    def note(self, path: str, what: Literal["taken", "changed", "dropped"], reason: str) -> None:
        self.entries.append({"path": path, "what": what, "reason": reason})

    def of(self, what: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["what"] == what]

    def lines(self) -> list[str]:
        """The summary in words, files that were dropped or changed first."""
        order = {"dropped": 0, "changed": 1, "taken": 2}
        entries = sorted(self.entries, key=lambda entry: order[entry["what"]])
        return [f"  {entry['what']:<8}{entry['path']}: {entry['reason']}" for entry in entries]


def plain(block: Block) -> str:
    """A block as text: of a table, a line a row with the names of the columns; of a question, its answer too."""
    if block.kind == "question":
        return f"{block.text}\n{block.rows[0][0]}"
    if block.kind == "table":
        return "\n".join([block.text, *(" | ".join(row) for row in block.rows)]).strip()
    return block.text


def title_of(blocks: list[Block], path: str) -> str:
    """The first heading, or else the file's name as words."""
    first = next((block.text for block in blocks if block.kind == "heading"), None)
    return first or Path(path).stem.replace("_", " ").replace("-", " ").strip().capitalize()
