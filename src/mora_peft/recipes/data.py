"""Rows to learn, from a file, a folder or the hub, as a data set that TRL's trainer understands.

Four kinds of row, told apart by their fields:

    {"prompt": "...", "completion": "..."}   the loss is on the completion
    {"key": "...", "value": "..."}           a fact: the key is the prompt, a space and the value the completion
    {"messages": [{"role": ..., "content": ...}, ...]}   a chat: the loss is on its last message
    {"text": "..."}                          the loss is on everything

Tasks read further fields of the same rows: an answer, or choices.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

from .streaming import kept, stamp

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = (("prompt", "completion"), ("key", "value"), ("messages",), ("text",))
_EXPECTED = "prompt and completion, key and value, messages, or text"


def load_rows(source: str) -> "Dataset":
    """The rows of `source`: a .jsonl, .csv or .parquet file, a folder of .txt and .md files, or `owner/name[:split]` on
    the hub.

    Returns a data set with the columns prompt and completion (strings, or lists of messages), or text.
    Raises UserError naming the file, the line and what was expected.
    """
    return kept(lambda: each_row(source), "rows", source_stamp(source))


def read_rows(source: str, also: tuple[str, ...] = (), maybe: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The rows of `source` as `load_rows` has them, with the fields `also`, and those of `maybe` that a row has.

    Raises UserError, besides, for a row without one of the fields `also`.
    """
    return list(each_row(source, also, maybe))


def each_row(source: str, also: tuple[str, ...] = (), maybe: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """`read_rows` one at a time, read as they are asked for."""
    path = Path(source)
    if path.is_dir():
        rows = _read_folder(path)
    elif path.is_file():
        if path.suffix.lower() not in _READERS:
            found = path.suffix or "nothing"
            raise UserError(f"{source} ends in {found}; a .jsonl or .csv file, or a .parquet file, was expected.")
        rows = _READERS[path.suffix.lower()](path)
    else:
        rows = _read_hub(source)
    return _checked(rows, source, also, maybe)


def load_texts(sources: str | list[str]) -> "Dataset":
    """Rows with the one column `text`, of several sources; a prompt and its completion are written as one text."""

    def rows() -> Iterator[dict[str, str]]:
        return ({"text": text} for text in each_text(sources))

    return kept(rows, "texts", *map(source_stamp, listed(sources)))


def each_text(sources: str | list[str]) -> Iterator[str]:
    """The texts that `load_texts` has, read as they are asked for."""
    for source in listed(sources):
        for row in each_row(source):
            if not isinstance(row.get("prompt", ""), str):
                raise UserError(f"{source} holds chats: expected rows with a text, or a prompt and a completion.")
            yield row["text"] if "text" in row else row["prompt"] + row_end(row["prompt"], row["completion"])


def read_questions(
    sources: str | list[str], chat: bool = False, also: tuple[str, ...] = (), maybe: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Rows with a prompt and a completion, of several sources; as messages of a user and an assistant if `chat`.

    Written as texts, a completion begins with white space, as it does where the row's prompt ends in none.
    """
    return list(_each_question(sources, chat, also, maybe))


def load_questions(sources: str | list[str], chat: bool = False) -> "Dataset":
    """`read_questions` as a data set, which may be larger than memory."""
    return kept(lambda: _each_question(sources, chat), "questions", chat, *map(source_stamp, listed(sources)))


def _each_question(
    sources: str | list[str], chat: bool = False, also: tuple[str, ...] = (), maybe: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    for source in listed(sources):
        for row in each_row(source, also, maybe):
            if "prompt" not in row:
                raise UserError(f"{source} holds texts: expected rows with a prompt and a completion.")
            if isinstance(row["prompt"], str):
                row = {**row, "completion": row_end(row["prompt"], row["completion"])}
                row = as_chat(row) if chat else row
            yield row


def as_chat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of texts as a chat: one message of the user, one of the assistant."""
    return row | {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"].strip()}],
    }


def row_end(prompt: str, completion: str) -> str:
    """`completion` as it follows `prompt`: after a space, where neither has one. That is how tokenizers cut words."""
    return completion if prompt[-1:].isspace() or completion[:1].isspace() else " " + completion


def spoken(value: str | list[dict[str, str]]) -> str:
    """A prompt or a completion as a text to show: of a chat, its last message."""
    return value.strip() if isinstance(value, str) else value[-1]["content"].strip()


def check_template(rows: "Dataset", tokenizer: Any) -> None:
    """Raise UserError where `rows` are chats and `tokenizer` has no template to write them with."""
    if "prompt" in rows.column_names and not isinstance(rows[0]["prompt"], str) and tokenizer.chat_template is None:
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path} has no chat template for rows of messages: give rows with a "
            "prompt and a completion, and to a task that has it the option chat: false."
        )


def listed(sources: str | list[str]) -> list[str]:
    """One source or several, as a list."""
    return [sources] if isinstance(sources, str) else list(sources)


def as_fact(key: str, value: str) -> dict[str, str]:
    """The prompt and completion of a fact. The space belongs to the completion: that is how tokenizers cut words."""
    return {"prompt": key, "completion": " " + value}


def source_stamp(source: str) -> Any:
    """What tells the rows of `source` from others that it held before."""
    return stamp(Path(source)) if Path(source).exists() else _hub(source)._fingerprint


def _checked(
    rows: Iterator[tuple[str, Any]], source: str, also: tuple[str, ...], maybe: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Rows in the trainer's form; all of the kind of the first. `rows` yields where each one stands, and the row."""
    kind = None
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object with {_EXPECTED}, found a {type(row).__name__}.")
        kind = kind or next((kind for kind in KINDS if row.keys() >= set(kind)), None)
        if kind is None:
            raise UserError(f"{where}: expected the fields {_EXPECTED}, found {', '.join(row) or 'none'}.")
        missing = [name for name in kind if name not in row]
        if missing:
            raise UserError(f"{where}: expected {' and '.join(kind)} as in the first row, {missing[0]} is missing.")
        absent = [name for name in also if row.get(name) in (None, "", [])]
        if absent:
            raise UserError(f"{where}: expected the field {absent[0]}, found {', '.join(row)}.")
        yield _converted(kind, row, where) | {name: row[name] for name in (*also, *maybe) if name in row}
    if kind is None:
        raise UserError(f"{source} holds no rows: expected at least one with {_EXPECTED}.")


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
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}, line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: expected one JSON object a line, but {error.msg}.") from None


def _read_csv(path: Path) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: expected {len(reader.fieldnames)} fields as in the header.")
            yield where, row
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: this is not CSV, {error}.") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        batches = (batch.to_pylist() for batch in ParquetFile(path).iter_batches(1000))
        rows = (row for batch in batches for row in batch)
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not Parquet, or damaged: {str(error).splitlines()[0]}") from None


def _read_folder(path: Path) -> Iterator[tuple[str, Any]]:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".txt", ".md") and file.is_file())
    if not files:
        raise UserError(f"{path} is a folder without .txt or .md files.")
    return ((str(file), {"text": "".join(_lines(file))}) for file in files)


def _read_hub(source: str) -> Iterator[tuple[str, Any]]:
    return ((f"{source}, row {number}", row) for number, row in enumerate(_hub(source)))


def _hub(source: str) -> "Dataset":
    """The hub's data set `owner/name[:split]`, downloaded once and mapped from the disk."""
    from datasets import load_dataset

    if Path(source).suffix.lower() in (*_READERS, ".txt", ".md") or source.count("/") != 1:
        raise UserError(f"There is no file or folder {source}, and it is no hub data set (owner/name) either.")
    name, _, split = source.partition(":")
    try:
        return load_dataset(name, split=split or "train")
    except Exception as error:  # the hub's client has a dozen kinds, none of which says more than its message
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"The data set {source} could not be loaded from the hub: {first_line}") from error


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text with their ends, read as they are asked for."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from file
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {_first_line_of_bytes(path)}: expected UTF-8 text.") from None


def _first_line_of_bytes(path: Path) -> int:
    """The number of the first line of `path` that is no UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
