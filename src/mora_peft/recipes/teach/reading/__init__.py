"""Files of many formats as documents: a table of readers, each through a library, and a reason for what is not read."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from mora_peft.errors import UserError
from mora_peft.recipes.teach.documents import Block, Document, Summary, title_of
from mora_peft.recipes.teach.language import language_of

from .faq import paired
from .files import files_below, kind_of

#: By the ending of a file: the module that reads it, and the packages which that needs beyond `mora-peft[cli]`.
READERS: dict[str, tuple[str, str]] = {
    ".txt": ("text", "charset-normalizer"),
    ".jsonl": ("text", "charset-normalizer"),
    ".md": ("html", "beautifulsoup4"),
    ".markdown": ("html", "beautifulsoup4"),
    ".html": ("html", "beautifulsoup4"),
    ".htm": ("html", "beautifulsoup4"),
    ".pdf": ("pdf", "pypdf"),
    ".docx": ("docx", "python-docx"),
    ".csv": ("tables", "charset-normalizer"),
    ".tsv": ("tables", "charset-normalizer"),
    ".xlsx": ("tables", "openpyxl"),
}

#: Reads a file as what the ending says; notes what it leaves out with the function it is given.
Reader = Callable[[Path, str, Callable[[str], None]], list[Block]]


class Unreadable(Exception):
    """A file that cannot be read; the message says why."""


def read_folder(folder: Path, largest_megabytes: float, summary: Summary) -> list[Document]:
    """All documents below `folder`, in the order of their paths; `summary` gets an entry for every file.

    A file that cannot be read is an entry, not an error. Raises UserError where `folder` is none, holds no files, or
    holds nothing that can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one that holds the documents to teach.")
    files = files_below(folder, lambda path, reason: summary.note(str(path.relative_to(folder)), "dropped", reason))
    if not files and not summary.entries:
        raise UserError(f"{folder} is empty: expected documents ({', '.join(READERS)}).")
    documents = list(_read(folder, files, largest_megabytes, summary))
    if not documents:
        reasons = "; ".join(sorted({entry["reason"] for entry in summary.of("dropped")})[:3])
        raise UserError(f"{folder} holds no document that can be read ({reasons}): give {', '.join(READERS)}.")
    return documents


def _read(folder: Path, files: list[Path], largest_megabytes: float, summary: Summary) -> Iterator[Document]:
    for file in files:
        path = str(file.relative_to(folder))
        try:
            blocks = _blocks(file, largest_megabytes, lambda reason, path=path: summary.note(path, "changed", reason))
        except Unreadable as error:
            summary.note(path, "dropped", str(error))
            continue
        text = "\n".join(block.text + " ".join(map(" ".join, block.rows)) for block in blocks)
        yield Document(path, title_of(blocks, path), tuple(blocks), language_of(text))


def _blocks(file: Path, largest_megabytes: float, note: Callable[[str], None]) -> list[Block]:
    """The blocks of a file that say something. Raises Unreadable whatever its reader raises: others can be read."""
    try:
        size = file.stat().st_size
        if size > largest_megabytes * 1e6:
            raise Unreadable(
                f"{size / 1e6:.0f} MB are more than {largest_megabytes:g}; split it, or raise --largest_megabytes"
            )
        kind = kind_of(file)
        read = _reader(kind)
        if READERS[kind] != READERS.get(file.suffix.lower()):
            note(f"read as {kind}, which its content is")
        blocks = paired(read(file, kind, note))
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(f"it cannot be opened ({error.strerror or error})") from error
    except Exception as error:
        told = (str(error).splitlines() or [""])[0][:100] or type(error).__name__
        raise Unreadable(f"it is damaged, or no {kind} file ({told}); save it anew") from error
    blocks = [block for block in blocks if (block.rows if block.kind == "table" else block.text.strip())]
    if not any(block.kind != "heading" for block in blocks):
        raise Unreadable("it holds headings alone, and nothing below them" if blocks else "it holds no text")
    return blocks


def _reader(kind: str) -> Reader:
    if kind not in READERS:
        raise Unreadable(f"files that end in {kind or 'nothing'} are not read; convert it to one of {_endings()}")
    module, package = READERS[kind]
    try:
        return import_module(f"{__name__}.{module}").read
    except ImportError as error:
        raise Unreadable(f"the package {package} is missing ({error.name}): pip install 'mora-peft[teach]'") from error


def _endings() -> str:
    return ", ".join(READERS)
