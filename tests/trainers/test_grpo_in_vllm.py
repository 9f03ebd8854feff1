"""TRL's GRPOTrainer with a vLLM of its own, as it stands: what vLLM computes after each sync is the merged model's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def test_vllm_computes_what_the_merged_model_does_after_every_step(servable_model, tmp_path):
    result = tmp_path / "result.json"
    script = Path(__file__).with_name("grpo_in_vllm.py")
    done = subprocess.run(
        [sys.executable, str(script), str(servable_model), "rotation", str(result)],
        env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(result.read_text())
    assert len(found["steps"]) == 3
    before = found["start"]
    for served, merged in found["steps"]:
        assert served == pytest.approx(merged, abs=2e-3)
        assert max(abs(a - b) for a, b in zip(served, before, strict=True)) > 0.02
        before = served
