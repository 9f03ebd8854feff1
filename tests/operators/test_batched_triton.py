"""The GPU's kernels under Triton's interpreter: the same laws as the other paths."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mora_peft.operators.batched import native

pytest.importorskip("triton", reason="triton is not installed")

if os.environ.get("TRITON_INTERPRET") != "1":

    def test_under_the_interpreter():
        """Triton reads the switch when it is imported, which other tests may have done: a process of its own."""
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
        # Without the CPU's kernel slots are as they are on a GPU: M row by row.
        environment = {**os.environ, "TRITON_INTERPRET": "1", native.SWITCH: "0"}
        found = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout[-4000:]
        assert " passed" in found.stdout and " skipped" not in found.stdout

    @pytest.mark.parametrize("num", ["bf16", "fp16", "fp32"])
    @pytest.mark.parametrize("form", [None, "SINGLE", "LONG"])
    def test_it_compiles_for_a_gpu(form, num, tmp_path):
        """As far as machine code, which needs no GPU, and with no number that has to leave the registers."""
        from triton import compile as compiled
        from triton import knobs
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        from mora_peft.operators.batched import triton

        kernel, constants, options = triton._compress, {}, {}
        if form:
            kernel, form = triton._multiply, getattr(triton, form)
            chunk = form.bytes // (4 if num == "fp32" else 2)
            constants = {"block": form.block, "ways": form.ways, "tile": form.tile, "chunk": chunk}
            options = {"num_warps": form.warps, "num_stages": form.stages}
        pointers = {"y": f"*{num}", "x": f"*{num}", "s": f"*{num}", "buffer": f"*{num}"}
        pointers |= {"table": "*i32", "slots": "*i32", "turns": "*i64"}
        names = kernel.arg_names
        signature = {name: pointers.get(name, "i32") for name in names} | dict.fromkeys(constants, "constexpr")
        # What is a multiple of 16 as a rule, and what always is.
        aligned = {*pointers, "width", "capacity", "k", "d", "x_stride", "y_stride"}
        attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in names if name in aligned}
        source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
        made = compiled(source, target=GPUTarget("cuda", 90, 32), options=options)
        cubin = tmp_path / "cubin"
        cubin.write_bytes(made.asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin]
        used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert " STACK:0 " in used and " LOCAL:0 " in used, used
        if form and num != "fp32":
            assert ("wgmma" if form is triton.LONG else "mma.sync") in made.asm["ptx"]
            assert "cp.async.cg" in made.asm["ptx"]  # 16 bytes at a time

else:
    import torch
    import triton.language as tl
    from hypothesis import given
    from hypothesis import strategies as st
    from operator_rows import ROWS, Row, side_for
    from test_batched_paths import TOLERANCES, Layer
    from triton.runtime import interpreter

    from mora_peft.operators.batched import Step, triton
    from mora_peft.operators.geometry import pitch

    class Builder(interpreter.InterpreterBuilder):
        """Triton's interpreter keeps bfloat16 as integers, and multiplies them as such: the product is of float32."""

        def create_dot(self, a, b, *rest):
            return super().create_dot(self.cast_impl(a, tl.float32), self.cast_impl(b, tl.float32), *rest)

    interpreter.interpreter_builder.__class__ = Builder

    #: One token each; runs of one slot, longer than a block; slots that meet inside a block; and single ones again.
    TOKENS = [1, -1, 0, 1, *[1, 0] * 30, *[1] * 70, *[0] * 20, *[-1] * 9, *[1] * 31, 0, 1, 1]
    #: Fewer, as the interpreter is slow: one by one, and a run.
    FEW, RUN = [1, -1, 1, 0, 1], [1] * 9

    @pytest.fixture(autouse=True)
    def nothing_is_taken_for_granted(monkeypatch):
        """Scratch holds what is no number before it is written."""
        monkeypatch.setattr(torch, "empty", lambda *shape, **options: torch.full(shape, math.nan, **options))

    @pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
    @pytest.mark.parametrize("tokens", [FEW, RUN], ids=len)
    @pytest.mark.parametrize("row", ROWS, ids=str)
    def test_an_adapter_is_its_definition(row, tokens, dtype):
        layer = Layer(50, 90, 20, 2, dtype)
        layer.put(1, row, 20)
        layer.check(triton.add_, tokens, padding=1)

    #: A side larger than k and d; more rows than are multiplied together; rows that are filled up, of one tile and of
    #: two; outputs that repeat the rows often; and the inputs of several rows in one.
    @pytest.mark.parametrize(
        "shape", [(7, 9, 20), (70, 74, 4), (150, 80, 70), (150, 300, 130), (30, 290, 9), (290, 30, 8)], ids=str
    )
    @pytest.mark.parametrize("row", ROWS, ids=str)
    def test_shapes(row, shape):
        k, d, side = shape
        layer = Layer(k, d, side, 2)
        layer.put(1, row, side)
        for tokens in (FEW, RUN):
            layer.check(triton.add_, tokens)

    @pytest.mark.parametrize("programs", [(1, 0), (10**6, 10**6)], ids=str)
    @pytest.mark.parametrize("row", [ROWS[0], ROWS[1], ROWS[4], ROWS[5]], ids=str)
    def test_any_number_of_programs(row, programs, monkeypatch):
        """One has all the work of its tokens, or as many as there could be share it."""
        monkeypatch.setattr(triton, "PROGRAMS", programs[0])
        monkeypatch.setattr(triton, "SHARING", programs[1])
        layer = Layer(140, 290, 34, 2)
        for side in (34, 10):  # 5 rows are multiplied twice, to fill up; 14 rows once
            layer.put(1, row, side)
            for tokens in (FEW, RUN):
                layer.check(triton.add_, tokens)

    @pytest.mark.parametrize("row", [ROWS[0], ROWS[4]], ids=str)
    def test_runs_and_single_tokens(row, monkeypatch):
        """Also where a program takes several single tokens, one after the other."""
        layer = Layer(50, 90, 20, 2)
        layer.put(0, row, 10)
        layer.put(1, row, 20)
        layer.check(triton.add_, TOKENS, padding=2)
        monkeypatch.setattr(triton, "GROUPS", 50)
        layer.check(triton.add_, TOKENS, padding=2)

    def test_all_operators_in_one_batch():
        layer = Layer(50, 90, 70, len(ROWS) + 2)
        for index, row in enumerate(ROWS):
            layer.put(index, row, (20, 7, 70)[index % 3])
        slots = list(range(-1, len(ROWS) + 2))
        layer.deltas[len(ROWS)] = 0
        layer.put(len(ROWS) + 1, 2)  # a LoRA, which on a GPU has kernels of its own
        layer.deltas[len(ROWS) + 1], layer.slots.contents[len(ROWS) + 1] = 0, None
        layer.check(triton.add_, slots)
        layer.check(triton.add_, [slot for slot in slots for _ in range(12)])

    @pytest.mark.parametrize("row", ROWS, ids=str)
    def test_a_process_holds_a_part(row):
        layer = Layer(50, 90, 20, 2, inputs=range(13, 38), outputs=range(30, 75))
        layer.put(1, row, 20)
        for tokens in (FEW, RUN):
            layer.check(triton.add_, tokens)

    @pytest.mark.parametrize("times", [1, 10])
    @pytest.mark.parametrize("value", [math.inf, math.nan])
    def test_what_is_not_finite_stays_with_its_token(value, times):
        """In M of one adapter, in x of one token, and in what an earlier adapter left behind."""
        layer = Layer(80, 80, 70, 3)
        layer.slots.buffer[:] = math.nan
        for index in (0, 1):
            layer.put(index, Row("decoupling"), 70)
        layer.slots.matrices(slice(0, 1))[:] = value
        x, y = torch.ones(5 * times, 80), torch.zeros(5 * times, 80)
        slots = torch.tensor([0, 1, 1, -1, 2]).repeat_interleave(times)
        x[times] = value
        triton.add_(y, x, layer.slots, Step(slots))
        spoilt = slots == 0
        spoilt[times] = True
        assert not y[spoilt].isfinite().any() and y[~spoilt].isfinite().all()
        assert not y[slots < 0].any() and not y[slots == 2].any()
        assert torch.allclose(y[slots == 1][1:].double(), layer.deltas[1].sum(1), atol=1e-4)

    @pytest.mark.parametrize("size", [0, 5, 20])
    def test_a_longer_step(size):
        """A step that a CUDA graph keeps has room for more tokens than there are."""
        layer = Layer(50, 90, 20, 2)
        layer.put(1, ROWS[0], 20)
        x, y = torch.randn(size, 50), torch.zeros(size, 90)
        triton.add_(y, x, layer.slots, Step(torch.tensor([1] * 40)))
        assert torch.allclose(y, x @ layer.deltas[1].float().T, atol=1e-4)

    @pytest.mark.parametrize("row", ROWS, ids=str)
    @given(k=st.integers(1, 2000), d=st.integers(1, 2000), side=st.integers(1, 300))
    def test_scratch_holds_every_operator(row, k, d, side):
        operator = row.make(k, d, side_for(row, side))
        room = operator.r_hat * pitch(operator.r_hat)
        slots = SimpleNamespace(k=k, d=d, largest_side=math.isqrt(room))
        assert operator.geometry.rows * pitch(operator.r_hat) <= triton.scratch(slots)
