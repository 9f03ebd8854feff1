"""PEFT's own tests, unchanged, run on MoRA: mora_rows.py gives each test of MiSS, MoRA's nearest twin, a MoRA copy."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import mora_rows
import pytest
from sdist import SdistUnavailable, copy_as_package, peft_tests
from stand_ins import write_stand_ins

HERE = Path(__file__).parent
PACKAGE = "peft_own_tests"
FILES = [
    "test_config.py",
    "test_custom_models.py",
    "test_decoder_models.py",
    "test_encoder_decoder_models.py",
    "test_feature_extraction_models.py",
    "test_quantization.py",
    "test_seq_classifier.py",
    "test_target_parameters.py",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory, pytestconfig) -> dict:
    """What became of every MoRA row: one run of PEFT's suite in a process of its own."""
    root = tmp_path_factory.mktemp("peft")
    try:
        copy_as_package(peft_tests(pytestconfig.cache.mkdir("peft-sdist")), root / PACKAGE)
    except SdistUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"PEFT's own suite must run in CI, but {error}")
        pytest.skip(f"PEFT's own suite is not run: {error}")
    write_stand_ins(root / "hub")
    if not importlib.util.find_spec("diffusers"):  # imported for one isinstance, by tests of image models only
        (root / "diffusers.py").write_text("class StableDiffusionPipeline: ...\n")
    (root / "pytest.ini").write_text("[pytest]\n")  # ends the search for a configuration here

    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTEST_ADDOPTS": "",
        "HF_HUB_CACHE": str(root / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        # With MKL's kernels for AVX-512, LoRA's own rows miss PEFT's tolerance of 1e-6 too (Llama 4's disabled
        # adapters). Its "conditional numerical reproducibility" computes alike on every CPU.
        "MKL_CBWR": "COMPATIBLE",
    }
    command = [sys.executable, "-m", "pytest", "-p", "mora_rows", "--mora-report", "report.json", "-q", "--tb=short"]
    command += [f"{PACKAGE}/{file}" for file in FILES]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=540)
    report_file = root / "report.json"
    finished = run.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and report_file.exists()
    assert finished, f"PEFT's suite did not run to its end:\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
    return json.loads(report_file.read_text())


@pytest.mark.parametrize("file", FILES)
def test_peft_file_passes_on_mora(report, file, capsys):
    counts = report["outcomes"].get(file, {})
    with capsys.disabled():
        print(f"\n{file}: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())), end=" ")
    failures = [f"{test}\n{text}" for test, text in report["failures"].items() if f"/{file}::" in test]
    assert not failures, "\n\n".join(failures)
    if file == "test_quantization.py" and set(counts) == {"skipped"}:
        pytest.skip("neither bitsandbytes nor torchao is installed")
    assert counts.get("passed"), f"nothing in {file} ran on MoRA"


def test_every_skip_has_a_written_reason(report):
    unexplained = [skip for skip in report["skips"] if not skip.startswith(tuple(mora_rows.EXPECTED_SKIPS))]
    assert not unexplained, f"PEFT skips MoRA, and EXPECTED_SKIPS does not say why: {unexplained}"
