"""The path for CPUs: native.c, compiled once by the machine's C compiler and kept in the user's cache."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .slots import Slots, Step

#: Set to 0, it leaves the work to the plain path.
SWITCH = "MORA_NATIVE"
SOURCE = Path(__file__).with_name("native.c")
# Sums may be taken in any order, which is what lets a compiler use vectors; infinities and NaNs keep their meaning.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"]
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class _Layer(ctypes.Structure):
    """`Layer` of native.c."""

    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("table", ctypes.c_void_p),
        ("turns", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("dtype", "k", "d", "in_start", "in_count", "out_start", "out_count")),
    )


def usable(x: Tensor, y: Tensor, slots: "Slots") -> bool:
    """Whether `add_` can do it: a compiler was there, and numbers of one dtype lie side by side in each row."""
    dtype = slots.buffer.dtype
    return (
        _kernel() is not None and x.dtype == y.dtype == dtype and dtype in DTYPES and x.stride(-1) == 1 == y.stride(-1)
    )


def add_(y: Tensor, x: Tensor, slots: "Slots", step: "Step") -> Tensor:
    """See `slots.add_adapters_`."""
    _kernel()(
        layer(slots), y.data_ptr(), y.stride(0), x.data_ptr(), x.stride(0), step.slots.data_ptr(), len(step.slots)
    )
    return y


def layer(slots: "Slots") -> int:
    """The address of the `Layer` that describes `slots`; made once, since all that it points to stays where it is."""
    if slots.native is None:
        ins, outs = slots.inputs, slots.outputs
        slots.native = _Layer(
            slots.buffer.data_ptr(),
            slots.capacity,
            slots.table.data_ptr(),
            slots.turns.data_ptr(),
            DTYPES[slots.buffer.dtype],
            *(slots.k, slots.d, ins.start, len(ins), outs.start, len(outs)),
        )
    return ctypes.addressof(slots.native)


@cache
def _kernel():
    """`add_adapters` of native.c; None where it is switched off or cannot be compiled, which is logged once."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        function = ctypes.CDLL(str(_compiled())).add_adapters
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        logging.getLogger(__name__).warning(
            "The CPU kernel for adapters could not be compiled, so a slower path is used (%s).", said
        )
        return None
    number, address = ctypes.c_int64, ctypes.c_void_p
    function.argtypes, function.restype = [address, address, number, address, number, address, number], None
    return function


def _compiled() -> Path:
    """The compiled library, from the cache if it was made from this source for this kind of machine."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("there is no C compiler: install gcc or clang, or set CC")
    made_of = (SOURCE.read_bytes(), compiler, FLAGS, platform.machine(), _processor())
    name = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mora_peft"
    library = folder / f"native-{name}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            made = Path(workshop) / library.name
            command = [compiler, *FLAGS, "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            os.replace(made, library)
    return library


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
