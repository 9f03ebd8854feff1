"""Plain text in any encoding, and JSONL rows."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from charset_normalizer import from_bytes

from mora_peft.recipes.teach.documents import Block

from . import Unreadable

_LONGEST_TITLE = 90
_QUESTION = re.compile(
    r"(?:Q|Question|Вопрос|В|问|问题)\s*[:：.]\s*(?P<q>.+?)\s*\n\s*"
    r"(?:A|Answer|Ответ|О|答|回答)\s*[:：.]\s*(?P<a>.+)",
    re.DOTALL,
)


def read(file: Path, note: Callable[[str], None]) -> list[Block]:
    """Paragraphs between empty lines; a short first line without a full stop is the title."""
    if file.suffix.lower() == ".jsonl":
        return _read_jsonl(file, note)
    return paragraphs(decoded(file, note))


def decoded(file: Path, note: Callable[[str], None]) -> str:
    """The text of a file: UTF-8, or else the encoding that it is likeliest written in, which is noted."""
    data = file.read_bytes()
    if not data.strip():
        raise Unreadable("it is empty")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        found = from_bytes(data).best()
        if found is None:
            raise Unreadable("it is no text in any encoding that is known") from None
        note(f"read as {found.encoding.replace('_', '-')}, not UTF-8")
        text = str(found)
    if "\0" in text:
        raise Unreadable("it holds binary data, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def paragraphs(text: str) -> list[Block]:
    """The blocks of plain text."""
    blocks = []
    for number, piece in enumerate(part.strip() for part in re.split(r"\n\s*\n", text.strip())):
        lines = [line.strip() for line in piece.split("\n") if line.strip()]
        if number == 0 and len(lines[0]) <= _LONGEST_TITLE and lines[0][-1] not in ".!?。！？:：,":
            blocks.append(Block("heading", lines[0].lstrip("# "), 1))
            lines = lines[1:]
        if found := _QUESTION.fullmatch("\n".join(lines)):
            blocks.append(Block("question", joined(found["q"].split("\n")), rows=((joined(found["a"].split("\n")),),)))
        elif lines:
            blocks.append(Block("text", joined(lines)))
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


def _read_jsonl(file: Path, note: Callable[[str], None]) -> list[Block]:
    """Rows with prompt and completion (or question and answer) as questions; the longest text of any other row."""
    blocks, broken = [], 0
    for line in decoded(file, note).split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            broken += 1
            continue
        texts = {name: value for name, value in row.items() if isinstance(value, str)} if isinstance(row, dict) else {}
        for question, answer in (("prompt", "completion"), ("question", "answer")):
            if texts.get(question) and texts.get(answer):
                blocks.append(Block("question", texts[question].strip(), rows=((texts[answer].strip(),),)))
                break
        else:
            if not texts:
                broken += 1
                continue
            if texts.get("title"):
                blocks.append(Block("heading", texts["title"], 2))
            blocks += [Block("text", joined(part.split("\n"))) for part in max(texts.values(), key=len).split("\n\n")]
    if broken:
        note(f"{broken} lines left out: no JSON objects with a text")
    return blocks
