"""The path for CPUs: native.c, compiled once by the machine's C compiler and kept in the user's cache."""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .slots import Slots, Step

#: Set to 0, it leaves the work to the plain path.
SWITCH = "MORA_NATIVE"
SOURCES = [Path(__file__).with_name(name) for name in ("native.c", "products.h", "vectors.h")]
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-w")
#: NUM of native.c.
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class _Slots(ctypes.Structure):
    """`struct slots` of native.c."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("k", "d", "inputs_start", "inputs", "outputs_start", "outputs", "count", "capacity")
        ),
        *((name, ctypes.c_void_p) for name in ("buffer", "table", "turns")),
    )


class _Step(ctypes.Structure):
    """`struct step` of native.c."""

    _fields_ = (("runs_count", ctypes.c_int64), ("runs", ctypes.c_void_p), ("order", ctypes.c_void_p))


class Kernel(NamedTuple):
    """native.c for one dtype, and the numbers of a row that M, packed, has side by side."""

    add_adapters: Any
    pack: Any
    pair: int


class Layer:
    """One `Slots` as the kernel reads it, made once: all that it points to stays where it is."""

    def __init__(self, slots: Slots) -> None:
        self._struct = _Slots(
            *(slots.k, slots.d, slots.inputs.start, len(slots.inputs), slots.outputs.start, len(slots.outputs)),
            *(slots.count, slots.capacity, slots.buffer.data_ptr(), slots.table.data_ptr(), slots.turns.data_ptr()),
        )
        self.address = ctypes.addressof(self._struct)


class Arrangement:
    """A `Step` as the kernel reads it."""

    def __init__(self, step: Step) -> None:
        self._runs, self._order = torch.tensor(step.runs, dtype=torch.int64), step.order
        self._struct = _Step(len(step.runs), self._runs.data_ptr(), self._order.data_ptr())
        self.address = ctypes.addressof(self._struct)


def add_(y: Tensor, x: Tensor, slots: Slots, step: Step) -> bool:
    """`add_adapters_` by the kernel. False, with y untouched, where it cannot do it: there is no compiler, or numbers
    are of several dtypes or do not lie side by side in each row."""
    kernel, dtype = slots.kernel, slots.buffer.dtype
    if kernel is None or x.dtype is not dtype or y.dtype is not dtype:
        return False
    x_width, x_step = x.stride()
    y_width, y_step = y.stride()
    if x_step != 1 or y_step != 1:
        return False
    layer, arranged = slots.for_native.address, step.for_native.address
    if not kernel.add_adapters(layer, arranged, y.data_ptr(), y_width, x.data_ptr(), x_width):
        raise MemoryError("There is no memory for the adapters' scratch.")
    return True


@cache
def kernel_for(dtype: torch.dtype) -> Kernel | None:
    """The kernel for a dtype, compiled if it was not yet; None where it is switched off, or cannot be had, which is
    logged once."""
    if os.environ.get(SWITCH) == "0" or dtype not in DTYPES:
        return None
    try:
        library = ctypes.CDLL(str(_library(DTYPES[dtype])))
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).warning(
            "The CPU kernel for adapters could not be compiled, so a slower path is used: %s",
            getattr(error, "stderr", None) or error,
        )
        return None
    number, address = ctypes.c_int64, ctypes.c_void_p
    library.add_adapters.argtypes = [address, address, address, number, address, number]
    library.pack.argtypes, library.pack.restype = [address, address, number], None
    return Kernel(library.add_adapters, library.pack, ctypes.c_int.in_dll(library, "pair").value)


def _library(num: int) -> Path:
    """The compiled library, from the cache if it was made from this source for this kind of machine."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("there is no C compiler; install gcc or clang, or set CC")
    flags = (*FLAGS, f"-DNUM={num}")
    made_of = (
        *(source.read_bytes() for source in SOURCES),
        os.path.realpath(compiler),
        flags,
        platform.machine(),
        _processor(),
    )
    name = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mora_peft"
    library = folder / f"native-{name}.so"
    if not library.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            made = Path(workshop) / library.name
            command = [*compiler.split(), *flags, "-o", str(made), str(SOURCES[0])]
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
