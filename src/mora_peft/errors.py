"""The one exception for what a person can put right: its message is a single sentence that says how."""

import errno

# What a full disk, a used-up quota and a file-size limit look like from Python, and through libraries that wrap them.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("no space left", "disk quota exceeded", "file too large", "iostream error", "unexpected pos")


class UserError(ValueError):
    """Bad input: one sentence that names the value, says what was expected and what to do."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on an accelerator or (where torch is refused it) on the host."""
    return (
        isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "can't allocate memory" in str(error)
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or anything that caused it, says that no more could be written.

    Safetensors and torch.save report a full disk as errors of their own, hence the words.
    """
    while error is not None:
        words = str(error).lower()
        if (isinstance(error, OSError) and error.errno in _FULL) or any(word in words for word in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
