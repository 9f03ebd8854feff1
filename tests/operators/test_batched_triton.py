"""The GPU's kernel under Triton's interpreter: the same laws as the other paths."""

import os
import subprocess
import sys

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

    @pytest.mark.parametrize("block", [1, 16])
    def test_it_compiles_for_a_gpu(block):
        """As far as machine code, which needs no GPU."""
        from triton import compile as compiled
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        from mora_peft.operators.batched import triton

        constants = {"block": block, "whole": triton.BLOCK, "tile": triton.TILE, "chunk": triton.CHUNK}
        constants |= {"fields": triton.FIELDS, "mora": triton.MORA}
        pointers = {"y": "*bf16", "x": "*bf16", "buffer": "*bf16", "table": "*i32", "slots": "*i32"}
        signature = {name: pointers.get(name, "i32") for name in triton._add.arg_names} | dict.fromkeys(
            constants, "constexpr"
        )
        made = compiled(ASTSource(triton._add, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32))
        assert len(made.asm["cubin"]) > 1000

else:
    import torch
    from operator_rows import ROWS
    from test_batched_paths import TOLERANCES, Layer

    from mora_peft.operators.batched import Step, triton

    #: One token each; a whole block of one slot; blocks that several share.
    TOKENS = [1, -1, 0, 1, *[1] * 12, *[1] * 16, 0, 1, 1]

    @pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
    @pytest.mark.parametrize("row", ROWS, ids=str)
    def test_an_adapter_is_its_definition(row, dtype):
        layer = Layer(50, 90, 20, 2, dtype)
        layer.put(1, row, 20)
        layer.check(triton.add_, TOKENS, padding=1)

    @pytest.mark.parametrize("shape", [(7, 40, 6), (150, 30, 70)], ids=str)
    @pytest.mark.parametrize("row", ROWS, ids=str)
    def test_shapes(row, shape):
        k, d, side = shape
        layer = Layer(k, d, side, 2)
        layer.put(1, row, side)
        layer.check(triton.add_, TOKENS)

    @pytest.mark.parametrize("row", ROWS, ids=str)
    def test_a_process_holds_a_part(row):
        layer = Layer(50, 90, 20, 2, inputs=range(13, 38), outputs=range(30, 75))
        layer.put(1, row, 20)
        layer.check(triton.add_, TOKENS)

    def test_slots_of_other_kinds_are_left_alone():
        """LoRAs, which on a GPU have kernels of their own, and empty slots."""
        layer = Layer(50, 90, 20, 3)
        layer.put(0, 2)
        layer.put(1, ROWS[0], 20)
        layer.deltas[0], layer.slots.contents[0] = 0, None
        layer.check(triton.add_, [0, 1, 2, -1] * 5)

    def test_a_longer_step():
        """A step that a CUDA graph keeps has room for more tokens than there are."""
        layer = Layer(50, 90, 20, 2)
        layer.put(1, ROWS[0], 20)
        x, y = torch.randn(5, 50), torch.zeros(5, 90)
        triton.add_(y, x, layer.slots, Step(torch.tensor([1] * 40)))
        assert torch.allclose(y, x @ layer.deltas[1].float().T, atol=1e-4)
