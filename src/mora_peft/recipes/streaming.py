"""Rows that may be more than memory holds: few stay in memory, many are written to the disk as they come.

What is on the disk lies in datasets' own cache (`HF_DATASETS_CACHE`), is mapped from there, and is found again by a
resumed run, by the other processes of a run and by the other runs of a comparison. Every row has its number, so rows
are drawn in the same random order, and a run goes on in the middle of a pass, wherever they are kept.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

from . import provenance

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]

IN_MEMORY = 32 * 2**20  # characters of rows that stay in memory
_PART = 1000, 4 * 2**20  # rows and characters that are tokenized at a time; TRL packs a thousand rows at a time too


def kept(rows: Callable[[], Iterator[Row]], *key: Any) -> "Dataset":
    """What `rows()` yields, as a data set: in memory where that is little, else on the disk under the name `key`.

    `rows` is called again for the latter. Equal keys must mean equal rows.
    """
    from datasets import Dataset

    few, size = [], 0
    for row in rows():
        few.append(row)
        size += _characters(row)
        if size > IN_MEMORY:
            return _on_disk(rows, key)
    return Dataset.from_list(few)


def is_kept_on_disk(rows: "Dataset") -> bool:
    """Whether `rows` are mapped from the disk."""
    return bool(rows.cache_files)


def in_parts(rows: "Dataset", prepare: "Callable[[Dataset], Dataset]", *key: Any) -> "Dataset":
    """`prepare(rows)` on the disk, made a part of the rows at a time; the columns of tokens alone, in 32 bits.

    `key` names what `prepare` depends on besides the rows.
    """
    from datasets import Dataset

    def prepared() -> Iterator[Row]:
        for part in _parts(rows):
            found = prepare(Dataset.from_list(part))
            tokens = [name for name in ("input_ids", "labels", "seq_lengths") if name in found.column_names]
            for row in found.select_columns(tokens).with_format("numpy"):
                yield {name: value.astype("int32") for name, value in row.items()}

    return _on_disk(prepared, (rows._fingerprint, *key))


def stamp(path: Path) -> list[Any]:
    """What tells a file, or the files of a folder, from others of the same name without reading them."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _on_disk(rows: Callable[[], Iterator[Row]], key: tuple[Any, ...]) -> "Dataset":
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError
    from datasets.fingerprint import Hasher

    try:
        # Whole or not there, and made by one process while the others wait: datasets sees to both.
        return Dataset.from_generator(rows, fingerprint=Hasher.hash((provenance.versions(), key)))
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


def _parts(rows: "Dataset") -> Iterator[list[Row]]:
    part, size = [], 0
    most, largest = _PART
    for row in rows:
        part.append(row)
        size += _characters(row)
        if len(part) == most or size > largest:
            yield part
            part, size = [], 0
    if part:
        yield part


def _characters(row: Row) -> int:
    return sum(len(str(value)) for value in row.values())
