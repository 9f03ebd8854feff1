"""An adapter's two files, read whole: one clear sentence for whatever is missing, damaged, too large or a pickle."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from mora_peft.errors import UserError

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

#: The largest `adapter_config.json` that is read, in bytes: thousands of layers named one by one fit in.
LARGEST_CONFIG = 2**20


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of `adapter_config.json` in `folder`; UserError where it is missing or no JSON object."""
    path = folder / CONFIG
    if not os.path.exists(path):
        raise UserError(f"{folder} is not an adapter: it has no {CONFIG}; give the folder that the adapter is in.")
    data = read_whole(path, LARGEST_CONFIG)
    try:
        fields = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({line_of(error)}): copy it again from where it came.") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} must hold a JSON object, but holds a {type(fields).__name__}.")
    return fields


def read_weights(folder: Path, limit: int | None = None) -> dict[str, Tensor]:
    """The tensors of `adapter_model.safetensors` in `folder`, on the CPU.

    The file is copied into memory before it is looked at: a memory map of a file that is cut short or replaced
    meanwhile would end the process.

    Raises UserError where the file is missing, damaged, a pickle, or larger than `limit` bytes.
    """
    path = folder / WEIGHTS
    if not os.path.exists(path):
        for pickle in filter(os.path.exists, (folder / PICKLE, folder / "adapter_model.pt")):
            raise UserError(
                f"{pickle} is a pickle, which can run code when it is read: save the adapter as {WEIGHTS}, "
                "or, if the authors' code wrote it, use `mora convert --from-authors`."
            )
        raise UserError(f"{folder} has no {WEIGHTS}: the adapter's weights are missing.")
    data = read_whole(path, limit)
    if _is_pickle(data):
        raise UserError(f"{path} is a pickle with the name of a safetensors file: save the adapter as safetensors.")
    try:
        return load(data)
    except (SafetensorError, KeyError) as error:  # a KeyError names a dtype that torch has not
        raise UserError(
            f"{path} is damaged or cut short ({len(data)} bytes; {line_of(error)}): copy it again from where it came."
        ) from error


def read_whole(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; a larger one is refused before any of it is read."""
    try:
        # Opening a named pipe would wait for a writer, for ever: NONBLOCK does not.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} is not a regular file: give an adapter as a folder of plain files.")
            if limit is not None and status.st_size > limit:
                raise UserError(f"{path} has {status.st_size} bytes, but at most {limit} are read: it cannot be right.")
            return file.read(status.st_size)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the file and who may read it.") from error


def line_of(error: BaseException) -> str:
    """The first line of an error's message, to be put into a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _is_pickle(data: bytes) -> bool:
    """Whether a file starts as a pickle or a torch.save archive; safetensors starts with a small 64-bit number."""
    start = data[:8]
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and any(start[2:]))
