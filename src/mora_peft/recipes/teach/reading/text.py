"""Plain text in any encoding."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from charset_normalizer import from_bytes

from mora_peft.recipes.teach.documents import Block

from . import Unreadable
from .faq import pieces

_LONGEST_TITLE = 90


def read(file: Path, kind: str, note: Callable[[str], None]) -> list[Block]:
    """Paragraphs between empty lines; a short first line without a full stop is the title. JSONL is read apart."""
    text = decoded(file, note)
    if kind == ".jsonl":
        from .jsonl import rows

        return rows(text, note)
    return paragraphs(text)


def decoded(file: Path, note: Callable[[str], None]) -> str:
    """The text of a file: UTF-8, or else the encoding that it is likeliest written in, which is noted."""
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        text, encoding = _in_other_encoding(data)
        note(f"read as {encoding.replace('_', '-')}, not UTF-8")
    if not text.strip():
        raise Unreadable("it is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _in_other_encoding(data: bytes) -> tuple[str, str]:
    """`data` as text, and its encoding: UTF-16 without a mark by where its zeros are, others by what makes words."""
    if data.count(0) and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        encoding = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            text = "\0"
        if not all(character.isspace() or unicodedata.category(character)[0] != "C" for character in text):
            raise Unreadable("it holds binary data, not text")
        return text, encoding
    found = from_bytes(data).best()
    if found is None:
        raise Unreadable("it is no text in any encoding that is known")
    if "\0" in (text := str(found)):
        raise Unreadable("it holds binary data, not text")
    return text, found.encoding


def paragraphs(text: str) -> list[Block]:
    """The blocks of plain text."""
    blocks = []
    parts = [part.strip() for part in re.split(r"\n\s*\n", text.strip())]
    for number, part in enumerate(parts):
        lines = [line.strip() for line in part.split("\n") if line.strip()]
        goes_on = len(lines) > 1 or len(parts) > 1  # a title stands above something
        if number == 0 and goes_on and len(lines[0]) <= _LONGEST_TITLE and lines[0][-1] not in ".!?。！？:：,":
            blocks.append(Block("heading", lines[0].lstrip("# "), 1))
            lines = lines[1:]
        if lines:
            blocks += [Block("text", joined(piece.split("\n"))) for piece in pieces("\n".join(lines))]
    return blocks


def joined(lines: list[str]) -> str:
    """Lines of one paragraph as one, with words that a hyphen broke made whole; Chinese has no spaces between lines."""
    text = ""
    for line in map(str.strip, lines):
        if text.endswith("-") and text[-2:-1].isalpha() and line[:1].islower():
            text = text[:-1] + line
        elif text and _is_han(text[-1]) and _is_han(line[:1]):
            text += line
        else:
            text += " " * bool(text) + line
    return text


def _is_han(character: str) -> bool:
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"
