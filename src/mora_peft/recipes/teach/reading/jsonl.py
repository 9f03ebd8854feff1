"""JSONL: rows of questions and answers in the shapes that training data have, or of texts."""

import json
from collections.abc import Callable
from typing import Any

from mora_peft.recipes.teach.documents import Block

from .text import joined

_PAIRS = (("prompt", "completion"), ("question", "answer"), ("instruction", "output"))


def rows(text: str, note: Callable[[str], None]) -> list[Block]:
    """Rows with a question and its answer, or with messages, as questions; the longest text of any other row."""
    blocks: list[Block] = []
    broken, left_out = 0, set()
    for line in filter(str.strip, text.split("\n")):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        row = row if isinstance(row, dict) else {}
        texts = {name: value.strip() for name, value in row.items() if isinstance(value, str) and value.strip()}
        if pairs := [pair for pair in _pairs(row) if all(pair)]:
            blocks += [Block("question", asked, rows=((answer,),)) for asked, answer in pairs]
        elif texts:
            longest = max(texts, key=lambda name: len(texts[name]))
            if "title" in texts and longest != "title":
                blocks.append(Block("heading", texts["title"], 2))
            blocks += [Block("text", joined(part.split("\n"))) for part in texts[longest].split("\n\n")]
            left_out |= set(texts) - {longest, "title"}
        else:
            broken += 1
    if broken:
        note(f"{broken} lines left out: no JSON objects with a text")
    if left_out:
        note(f"left out of rows without question and answer, where another text is longer: {', '.join(left_out)}")
    return blocks


def _pairs(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What a row asks and answers: its two fields, or every turn of the user with the last answer before the next."""
    for asked, answer in _PAIRS:
        if asked in row and answer in row:
            told = [_said(row[asked]), *([_said(row.get("input"))] if asked == "instruction" else [])]
            return [("\n".join(filter(None, told)), _said(row[answer]))]
    pairs: list[tuple[str, str]] = []
    messages = row.get("messages")
    for message in messages if isinstance(messages, list) else []:
        role, said = (message.get("role"), _said(message.get("content"))) if isinstance(message, dict) else ("", "")
        if role == "user":
            pairs.append((said, ""))
        elif role == "assistant" and pairs:
            pairs[-1] = (pairs[-1][0], said or pairs[-1][1])
    return pairs


def _said(value: Any) -> str:
    """A value as text: numbers in digits, and of a list of parts, or of one's messages, their texts."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        parts = [part.get("text", part.get("content")) if isinstance(part, dict) else part for part in value]
        return " ".join(filter(None, map(_said, parts)))
    return str(value).strip() if isinstance(value, str | int | float) else ""
