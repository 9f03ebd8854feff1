"""Which files of a folder are read, and as what: by their endings, unless their first bytes say otherwise."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile, ZipFile

_PACKED = {"word/document.xml": ".docx", "xl/workbook.xml": ".xlsx"}
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype )?html\b", re.I | re.S)


def files_below(folder: Path, leave_out: Callable[[Path, str], None]) -> list[Path]:
    """The files below `folder` in the order of their paths; `leave_out` is told of all else, and why.

    Links to folders are not followed, as they may lead in circles; pipes are not opened, as they may wait for ever.
    """

    def unopened(error: OSError) -> None:
        leave_out(Path(error.filename), f"it cannot be opened ({error.strerror})")

    found = []
    for parent, folders, names in os.walk(folder, onerror=unopened):
        for path in sorted(Path(parent, name) for name in folders + names):
            if reason := _reason_against(path):
                leave_out(path, reason)
            elif path.is_file():
                found.append(path)
        folders[:] = [name for name in folders if not _reason_against(Path(parent, name))]
    return sorted(found)


def _reason_against(path: Path) -> str:
    if path.name.startswith("."):
        return "it is hidden (its name begins with a full stop)"
    if path.name.startswith("~$"):
        return "it is no document, but Office's mark of one that is open"
    if not path.exists():
        return "it is a link to nothing"
    if path.is_dir():
        return "it is a link to a folder, which is not followed" if path.is_symlink() else ""
    return "" if path.is_file() else "it is no file, but a pipe, a socket or a device"


def kind_of(file: Path) -> str:
    """The ending that a file should have: that of what it begins as, or else the one it has, in lower case."""
    with file.open("rb") as opened:
        start = opened.read(1024)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"%PDF"):
        return ".pdf"
    if _PAGE.match(start):
        return ".html"
    if start.startswith(b"PK\x03\x04"):
        try:
            with ZipFile(file) as packed:
                return next((kind for name, kind in _PACKED.items() if name in packed.namelist()), file.suffix.lower())
        except BadZipFile:  # its reader will say so
            pass
    return file.suffix.lower()
