"""Comparisons: runs in processes of their own, nothing repeated, and a clean stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
import yaml
from filelock import FileLock

from mora_peft.errors import UserError
from mora_peft.recipes import processes
from mora_peft.recipes.compare import CompareConfig, Contender, compare, plan, table
from mora_peft.recipes.train import train


def test_the_table_has_a_line_for_every_run():
    def result(name, status, *scores):
        evaluations = [{"step": 10 * index, "exact_match": score} for index, score in enumerate(scores)]
        return {"run": name, "seed": 0, "status": status, "evaluations": evaluations}

    _, *lines = table([result("a", "finished", 0, 0.5), result("b", "diverged"), result("c", "failed")]).splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "c"]
    assert "0.500" in lines[0] and "exact match" in lines[0]
    assert "diverged" in lines[1] and "failed" in lines[2]


def test_every_run_has_a_folder_of_its_own(settings):
    methods = [
        Contender(method="lora"),
        Contender(method="lora", learning_rate=1e-3),
        Contender(method="mora", method_options={"operator": "sharing"}),
    ]
    runs = plan(CompareConfig(**settings, methods=methods, seeds=[0, 1]))
    assert len({run.output for run in runs}) == 6
    files = [Contender(peft_config="one.json"), Contender(peft_config="two.json"), Contender(method="mora")]
    named = [Path(run.output).name for run in plan(CompareConfig(**settings, methods=files))]
    assert named == ["peft-one-r2-seed0", "peft-two-r2-seed0", "mora-r2-seed0"]
    assert {run.seed for run in runs} == {0, 1}
    with pytest.raises(UserError, match="twice"):
        plan(CompareConfig(**settings, methods=[Contender(method="lora", learning_rate=1e-3)] * 3))


def test_a_comparison_goes_on_past_failures_and_repeats_nothing(settings, capsys):
    methods = [
        Contender(method="lora"),
        Contender(method="lora", learning_rate=1e30),
        Contender(method="lora", method_options={"no_such_option": True}),
    ]
    config = CompareConfig(**settings | {"steps": 3}, methods=methods)
    report = compare(config)
    outputs = [Path(run.output) for run in plan(config)]
    runs = [json.loads((output / "run.json").read_text()) for output in outputs]
    assert [run["status"] for run in runs] == ["finished", "diverged", "failed"]
    assert "no_such_option" in runs[2]["message"] and f"failed: {runs[2]['message']}" in capsys.readouterr().out
    assert report.is_file()
    times = [(output / "run.json").stat().st_mtime_ns for output in outputs]
    compare(config)
    again = [(output / "run.json").stat().st_mtime_ns for output in outputs]
    assert again[:2] == times[:2] and again[2] > times[2]
    compare(CompareConfig(**settings | {"steps": 2}, methods=methods[:1]))
    assert json.loads((outputs[0] / "run.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "absent.jsonl", "task": None}, "absent.jsonl"),
        ({"forgetting_data": "absent.jsonl"}, "absent.jsonl"),
        ({"model": "absent-model"}, "absent-model"),
        ({"task": "memorisation"}, "memorization"),
        ({"task_options": {"pair": 8}}, "pair"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_all_runs_share_is_checked_before_the_first(settings, change, words):
    config = CompareConfig(**settings | change, trials=2)
    with pytest.raises(UserError, match=words):
        compare(config)
    assert not Path(config.output).exists()


def test_ctrl_c_stops_every_process(settings, tmp_path):
    config = tmp_path / "compare.yaml"
    changes = {"steps": 100_000, "methods": [{"method": "lora"}, {"method": "prompt"}], "jobs": 2}
    config.write_text(yaml.safe_dump(settings | changes))
    parent = subprocess.Popen(
        [sys.executable, "-m", "mora_peft.cli.main", "compare", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so does what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in parent.stdout:
        if "step 6" in line:
            break
    children = _children(parent.pid)
    assert children
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=180)
    assert parent.returncode == 130
    # Installed quantizers print notices of their own as they are imported; ours is the last word, and no traceback.
    sentence = "mora compare: interrupted; run the same command again to go on from where it was."
    assert errors.strip().splitlines()[-1] == sentence
    assert "Traceback" not in errors
    time.sleep(0.2)
    assert not [child for child in children if _runs(child)]
    assert list(Path(settings["output"]).glob("*/checkpoint-*"))


def test_a_comparison_says_how_many_runs_are_done_and_what_is_left(settings, monkeypatch, capsys):
    runs = plan(CompareConfig(**settings, methods=[Contender(method="lora")], seeds=list(range(5))))
    passed = iter([0, 3600, 4800, 4800, 6000, 6000])  # seconds: at the beginning, and after each run
    monkeypatch.setattr(processes._Fleet, "_train", lambda self, run: None)
    monkeypatch.setattr(processes, "monotonic", lambda: next(passed))
    processes.run_all(runs, 1)
    assert capsys.readouterr().out.splitlines() == [
        "1 of 5 runs done, about 4 h 0 min left",
        "2 of 5 runs done, about 2 h 0 min left",
        "3 of 5 runs done, about 53 min left",
        "4 of 5 runs done, about 25 min left",
        "5 of 5 runs done",
    ]


def _children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("finishes", [True, False])
def test_a_run_under_way_elsewhere_is_waited_for_and_taken_over(finishes, settings, monkeypatch):
    """Two comparisons share a folder: what the other one finishes is not repeated, what it leaves is."""
    [run] = plan(CompareConfig(**settings | {"steps": 2}, methods=[Contender(method="lora")]))
    trained = []
    monkeypatch.setattr(processes._Fleet, "_train", lambda self, run: trained.append(run))
    monkeypatch.setattr(processes, "_SECONDS_BETWEEN_LOOKS", 0.05)
    Path(run.output).mkdir(parents=True)
    with FileLock(Path(run.output) / ".lock"):
        here = Thread(target=processes.run_all, args=([run], 1))
        here.start()
        if finishes:
            train(run)
        time.sleep(0.2)
        assert here.is_alive() and not trained
    here.join(timeout=30)
    assert not here.is_alive()
    assert trained == ([] if finishes else [run])
