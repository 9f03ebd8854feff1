"""Which folders may be served: names and paths that come over the network, held inside one configured folder."""

import os
import re
from pathlib import Path

from mora_peft.errors import UserError
from mora_peft.tuner.files import CONFIG, WEIGHTS

#: Names the folder whose subfolders are served as adapters, each by its name.
ADAPTERS = "MORA_ADAPTERS"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def configured() -> Path | None:
    """The folder named by `MORA_ADAPTERS`, resolved; None where there is none. UserError where it is no folder."""
    if not (given := os.environ.get(ADAPTERS)):
        return None
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{ADAPTERS} is {given}, which is not a folder: name the folder that holds the adapters.")
    return folder


def is_name(name: str) -> bool:
    """Whether an adapter's folder can have that name: letters, digits, `_`, `-`, `.`, no dot first, at most 128."""
    return _NAME.fullmatch(name) is not None


def find(name: str, root: Path) -> Path | None:
    """The adapter `name` directly below `root` (resolved), without a look at the others; None where there is none.

    Raises UserError where the folder, or a file in it, is a link to somewhere outside `root`, or the weights are no
    safetensors.
    """
    if not is_name(name) or not os.path.lexists(root / name / CONFIG):
        return None
    return _confined(root / name, root)


def check_folder(path: str, allowed: Path | None) -> Path:
    """The folder that may be loaded for `path`, which a request gave.

    Args:
        path: As given. With `allowed`, an absolute path or one relative to it; never a model hub's id.
        allowed: The folder (resolved) that adapters must be in. None: there is no such rule, and `path` is returned as
            it is.

    Raises:
        UserError: A path that leads out of `allowed`, by `..` or a link; that is no folder there; or whose weights are
            no safetensors.
    """
    if not path or "\0" in path:
        raise UserError(f"The path {_shown(path)} is not a folder: give the folder that the adapter is in.")
    if allowed is None:
        return Path(path)
    if ".." in Path(path).parts or path.startswith("~"):
        raise UserError(f"The path {_shown(path)} is refused: give an adapter's folder below {allowed}, without '..'.")
    return _confined(allowed / path, allowed)


def fingerprint(folder: str | Path) -> tuple | None:
    """What changes whenever an adapter's files are replaced or rewritten; None where one of them is missing.

    Times (ns), sizes and inode numbers of the files that links lead to: two system calls, nothing is read.
    """
    try:
        found = [os.stat(os.path.join(folder, file)) for file in (CONFIG, WEIGHTS)]
    except (OSError, ValueError):
        return None
    return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in found)


def _confined(folder: Path, root: Path) -> Path:
    """`folder` resolved; UserError where it, or a file that would be read, is not below `root` or not there."""
    try:
        resolved = folder.resolve()
        inside = resolved.is_relative_to(root) and resolved != root
        whole = inside and resolved.is_dir()
        files = [resolved / file for file in (CONFIG, WEIGHTS)]
        away = [file for file in files if not file.resolve().is_relative_to(root)]
        absent = [file for file in files if whole and not os.path.lexists(file)]
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, or links in a circle
        raise UserError(f"The path {_shown(str(folder))} cannot be read: give an adapter's folder.") from error
    if not inside:
        raise UserError(f"The path {_shown(str(folder))} is refused: only adapters below {root} are served.")
    if not whole:
        raise UserError(f"There is no folder {_shown(str(folder))}: give the folder that the adapter is in.")
    if away:
        raise UserError(f"{away[0]} is a link out of {root}, which is refused: put the file itself there.")
    if absent:
        raise UserError(
            f"{absent[0]} is missing: an adapter is served from {CONFIG} and {WEIGHTS}, never from a pickle."
        )
    return resolved


def _shown(text: str) -> str:
    """Text from a request, to be put into a sentence: escaped, and short."""
    return ascii(text) if len(text) <= 200 else f"{text[:200]!a}..."
