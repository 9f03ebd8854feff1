"""Rows to learn, from a file, a folder or the hub, as a data set that TRL's trainer understands.

Four kinds of row, told apart by their fields:

    {"prompt": "...", "completion": "..."}   the loss is on the completion
    {"key": "...", "value": "..."}           a fact: the key is the prompt, a space and the value the completion
    {"messages": [{"role": ..., "content": ...}, ...]}   a chat: the loss is on its last message
    {"text": "..."}                          the loss is on everything
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = (("prompt", "completion"), ("key", "value"), ("messages",), ("text",))
_EXPECTED = "prompt and completion, key and value, messages, or text"


def load_rows(source: str) -> "Dataset":
    """The rows of `source`: a .jsonl or .csv file, a folder of .txt and .md files, or `owner/name[:split]` on the hub.

    Returns a data set with the columns prompt and completion (strings, or lists of messages), or text.
    Raises UserError naming the file, the line and what was expected.
    """
    from datasets import Dataset

    path = Path(source)
    if path.is_dir():
        rows = _checked(_read_folder(path), source)
    elif path.is_file():
        if path.suffix.lower() not in _READERS:
            raise UserError(f"{source} ends in {path.suffix or 'nothing'}; a .jsonl or .csv file was expected.")
        rows = _checked(_READERS[path.suffix.lower()](path), source)
    elif path.suffix.lower() in (*_READERS, ".txt", ".md") or source.count("/") != 1:
        raise UserError(f"There is no file or folder {source}, and it is no hub data set (owner/name) either.")
    else:
        rows = _checked(_read_hub(source), source)
    return Dataset.from_list(rows)


def as_fact(key: str, value: str) -> dict[str, str]:
    """The prompt and completion of a fact. The space belongs to the completion: that is how tokenizers cut words."""
    return {"prompt": key, "completion": " " + value}


def _checked(rows: Iterator[tuple[str, Any]], source: str) -> list[dict[str, Any]]:
    """Rows in the trainer's form; all of the kind of the first. `rows` yields where each one stands, and the row."""
    found, kind = [], None
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object with {_EXPECTED}, found a {type(row).__name__}.")
        kind = kind or next((kind for kind in KINDS if row.keys() >= set(kind)), None)
        if kind is None:
            raise UserError(f"{where}: expected the fields {_EXPECTED}, found {', '.join(row) or 'none'}.")
        missing = [name for name in kind if name not in row]
        if missing:
            raise UserError(f"{where}: expected {' and '.join(kind)} as in the first row, {missing[0]} is missing.")
        found.append(_converted(kind, row, where))
    if not found:
        raise UserError(f"{source} holds no rows: expected at least one with {_EXPECTED}.")
    return found


def _converted(kind: tuple[str, ...], row: dict[str, Any], where: str) -> dict[str, Any]:
    if kind == ("messages",):
        return _last_answer(row["messages"], where)
    for name in kind:
        if not isinstance(row[name], str) or not row[name].strip():
            raise UserError(f"{where}: expected {name} to be a text that is not empty, found {row[name]!r}.")
    if kind == ("key", "value"):
        return as_fact(row["key"], row["value"])
    return {name: row[name] for name in kind}


def _last_answer(messages: Any, where: str) -> dict[str, Any]:
    """A chat as prompt and completion, the completion being the last message."""
    is_chat = isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    )
    if not is_chat or len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise UserError(
            f"{where}: expected messages to be a list of at least two objects with role and content, "
            "the last one with the role assistant."
        )
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def _read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}, line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: expected one JSON object a line, but {error.msg}.") from None


def _read_csv(path: Path) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: expected {len(reader.fieldnames)} fields as in the header.")
            yield where, row
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: this is not CSV, {error}.") from None


def _read_folder(path: Path) -> Iterator[tuple[str, Any]]:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".txt", ".md") and file.is_file())
    if not files:
        raise UserError(f"{path} is a folder without .txt or .md files.")
    return ((str(file), {"text": _text(file)}) for file in files)


def _read_hub(source: str) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    name, _, split = source.partition(":")
    try:
        rows = load_dataset(name, split=split or "train")
    except Exception as error:  # the hub's client has a dozen kinds, none of which says more than its message
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"The data set {source} could not be loaded from the hub: {first_line}") from error
    return ((f"{source}, row {number}", row) for number, row in enumerate(rows))


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: expected UTF-8 text.") from None
