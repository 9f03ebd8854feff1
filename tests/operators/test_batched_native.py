"""The CPU kernel: where it comes from, and what happens where it cannot be had."""

import logging
import os
import platform

import pytest
import torch
from operator_rows import ROWS, Row
from test_batched_paths import Layer, add_native

from mora_peft.operators.batched import Slots, Step, add_adapters_, native

needs_compiler = pytest.mark.skipif(not native.kernel_for(torch.float32), reason="there is no C compiler")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache, and nothing loaded; returns the cache's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.kernel_for.cache_clear()
    yield tmp_path / "mora_peft"
    native.kernel_for.cache_clear()


def a_call_works(dtype: torch.dtype = torch.float32) -> bool:
    """Adds an adapter by the public function; returns whether the kernel did it."""
    slots, y = Slots(4, 4, 1, 1, dtype), torch.zeros(1, 4, dtype=dtype)
    slots.put_mora(0, Row("sharing").make(4, 4, 2), torch.eye(2))
    add_adapters_(y, torch.ones(1, 4, dtype=dtype), slots, Step(torch.tensor([0])))
    assert torch.equal(y, torch.full((1, 4), 2.0, dtype=dtype))
    return slots.kernel is not None


@needs_compiler
def test_it_is_compiled_once(fresh):
    assert a_call_works()
    (library,) = fresh.iterdir()
    made = library.stat().st_mtime_ns
    native.kernel_for.cache_clear()
    assert a_call_works()
    assert [(file, file.stat().st_mtime_ns) for file in fresh.iterdir()] == [(library, made)]


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"])
def test_without_a_compiler_the_plain_path_works(compiler, fresh, monkeypatch, caplog):
    monkeypatch.setenv("CC", compiler)
    with caplog.at_level(logging.WARNING):
        assert not a_call_works() and not a_call_works()
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "The CPU kernel for adapters could not be compiled"
    ]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_no_error(fresh):
    fresh.parent.chmod(0o500)
    assert not a_call_works()


def test_it_can_be_switched_off(fresh, monkeypatch, caplog):
    monkeypatch.setenv(native.SWITCH, "0")
    assert not a_call_works() and not fresh.exists() and not caplog.records


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86-64")
@pytest.mark.parametrize("row", [ROWS[0], Row("rotation", fold=True), 5], ids=str)
@pytest.mark.parametrize("machine", ["x86-64", "x86-64-v3"])
def test_other_processors(machine, row, monkeypatch):
    """Vectors of 4 and 8 numbers and no instruction for bfloat16, whatever this machine has."""
    if machine == "x86-64-v3" and "avx2" not in native._processor():
        pytest.skip("this machine cannot run it")
    monkeypatch.setattr(native, "FLAGS", tuple(flag.replace("native", machine) for flag in native.FLAGS))
    native.kernel_for.cache_clear()
    layer = Layer(70, 40, 20, 2, torch.bfloat16)
    layer.put(0, row, 20)
    layer.put(1, row, 9)
    layer.check(add_native, [0] * 7 + [1, -1, 0, 1, 1])
    native.kernel_for.cache_clear()


@needs_compiler
def test_what_it_cannot_do_is_left_alone():
    slots, step = Slots(4, 6, 1, 1, torch.float32), Step(torch.tensor([0, 0]))
    x, y = torch.ones(2, 4), torch.ones(2, 6)
    assert native.add_(y, x, slots, step)
    assert not native.add_(y.bfloat16(), x, slots, step)
    assert not native.add_(y, x.bfloat16(), slots, step)
    assert not native.add_(y, torch.ones(4, 2).T, slots, step)
    assert not native.add_(torch.ones(6, 2).T, x, slots, step)
    assert torch.equal(y, torch.ones(2, 6))
