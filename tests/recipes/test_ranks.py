"""Two processes train what one does: the same losses and weights, checkpoints for each other, an end that is told."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from mora_peft.errors import UserError
from mora_peft.recipes import checkpoints, ranks, train
from mora_peft.recipes.trainer import RecipeTrainer

# Sums of the same float32 numbers in another order: of losses, gradients and what Adam makes of them.
TOLERANCE = 1e-4
METHODS = {"mora": {}, "remora": {"every": 3, "rewarm": 1}}
LAUNCHERS = {
    "torchrun": "-m torch.distributed.run --standalone --nproc-per-node 2",
    # On CPUs too: without --multi_gpu Accelerate starts one process there, whatever --num_processes says.
    "accelerate launch": "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 "
    "--mixed_precision no --dynamo_backend no",
    "fsdp": "-m accelerate.commands.launch --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP "
    "--fsdp_cpu_ram_efficient_loading {loading} --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no",
    "deepspeed": "-m accelerate.commands.launch --use_deepspeed --zero_stage 3 --zero3_save_16bit_model true "
    "--num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no",
}


def launch(cases: list[dict], folder: Path, launcher: str = "torchrun", **told) -> subprocess.CompletedProcess:
    """Train the cases in two processes that `launcher` starts, which is `told` what its command has braces for."""
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    return subprocess.run(
        [
            sys.executable,
            *LAUNCHERS[launcher].format(**told).split(),
            str(Path(__file__).with_name("in_ranks.py")),
            str(file),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def stopped(config: train.TrainConfig, step: int, monkeypatch) -> None:
    original = RecipeTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RecipeTrainer, "training_step", training_step)
        train.train(config)


def check_same(output: Path, expected: Path) -> None:
    """Within TOLERANCE the same weights, losses and measurements."""
    [mine], [yours] = ([*folder.glob("adapter/*.safetensors"), *folder.glob("model/*.safetensors")]
                       for folder in (output, expected))  # fmt: skip
    mine, yours = load_file(mine), load_file(yours)
    assert mine.keys() == yours.keys()
    for name, tensor in mine.items():
        assert (tensor - yours[name]).norm() <= TOLERANCE * yours[name].norm(), name
    mine, yours = train.read_run(output), train.read_run(expected)
    for name in ("history", "evaluations"):
        for first, second in zip(mine[name], yours[name], strict=True):
            assert first["step"] == second["step"]
            assert first["loss"] == pytest.approx(second["loss"], rel=TOLERANCE)
    assert (mine["tokens"], mine["steps"]) == (yours["tokens"], yours["steps"])


def test_two_processes_train_what_one_does(settings, tmp_path, monkeypatch):
    settings |= {"batch_size": 4, "dtype": "float32", "learning_rate": 1e-2}

    def case(name: str, method: str = "mora", **ending) -> dict:
        own = {"output": str(tmp_path / name), "method": method, "method_options": METHODS[method]}
        return settings | own | ({"ending": ending} if ending else {})

    def one(name: str, method: str = "mora") -> Path:
        return train.train(train.TrainConfig(**case(name, method)))

    stopped(train.TrainConfig(**case("one, then two")), 5, monkeypatch)
    cases = [
        case("mora"), case("remora", "remora"), case("two, then one", "remora", stop=5), case("one, then two"),
        case("killed", kill=5),
    ]  # fmt: skip
    launched = launch(cases, tmp_path)
    assert launched.returncode != 0
    assert "another process of this run has ended" in launched.stderr or "Signal 9" in launched.stderr

    whole = {method: one(f"one, {method}", method) for method in METHODS}
    for method, expected in whole.items():
        check_same(tmp_path / method, expected)
    assert checkpoints.latest(tmp_path / "two, then one").name == "checkpoint-4"
    check_same(one("two, then one", "remora"), whole["remora"])
    check_same(tmp_path / "one, then two", whole["mora"])
    assert checkpoints.latest(tmp_path / "killed").name == "checkpoint-4"
    check_same(one("killed"), whole["mora"])


def test_accelerate_launches_the_same_run(settings, tmp_path, monkeypatch):
    """Rows on the disk, which one process writes and both read, and ReMoRA."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"Ship {number} sailed the sea."}) for number in range(60)))
    settings |= {"batch_size": 4, "dtype": "float32", "learning_rate": 1e-2, "max_length": 48, "data": str(file),
                 "task": None, "task_options": {}, "eval_data": str(file)}  # fmt: skip
    cases = [settings | {"method": name, "method_options": options, "output": str(tmp_path / name)}
             for name, options in METHODS.items()]  # fmt: skip
    launched = launch([case | {"in_memory": 0} for case in cases], tmp_path, "accelerate launch")
    assert launched.returncode == 0, launched.stderr
    assert list((tmp_path / "cache").rglob("*.arrow"))
    for case in cases:
        expected = train.train(train.TrainConfig(**case | {"output": case["output"] + ", one process"}))
        check_same(Path(case["output"]), expected)


def test_a_run_whose_weights_FSDP_has_shared_out(settings, tmp_path, monkeypatch):
    """On CPUs, where Accelerate would pass over it; the first process alone reads the base."""
    settings |= {"batch_size": 4, "dtype": "float32", "learning_rate": 1e-2}
    methods = METHODS | {"full": {}}

    def case(method: str, name: str, **ending) -> dict:
        own = {"output": str(tmp_path / f"{method} {name}"), "method": method, "method_options": methods[method]}
        return settings | own | ({"ending": ending} if ending else {})

    def one(method: str, name: str) -> Path:
        return train.train(train.TrainConfig(**case(method, name)))

    for method in methods:
        stopped(train.TrainConfig(**case(method, "one, then two")), 5, monkeypatch)
    cases = [case(method, "two, then one", stop=5) for method in methods]
    cases += [case(method, "one, then two") for method in methods]
    cases += [case("mora", "two") | {"keep": "best", "checkpoint_every": 3}, case("mora", "killed", kill=5)]
    launched = launch(cases, tmp_path, "fsdp", loading="true")
    assert launched.returncode != 0 and "Signal 9" in launched.stderr, launched.stderr
    launched = launch([case("mora", "killed")], tmp_path, "fsdp", loading="true")
    assert launched.returncode == 0 and "Going on from" in launched.stdout, launched.stderr

    for method in methods:
        expected = one(method, "one")
        check_same(tmp_path / f"{method} one, then two", expected)
        assert checkpoints.latest(tmp_path / f"{method} two, then one").name == "checkpoint-4"
        check_same(one(method, "two, then one"), expected)
    check_same(tmp_path / "mora two", tmp_path / "mora one")
    check_same(tmp_path / "mora killed", tmp_path / "mora one")


def test_embeddings_that_FSDP_has_shared_out(settings, tiny_model, tmp_path):
    """Trained beside an adapter, as one weight with two names, on a base from a configuration."""
    config = json.loads(Path(tiny_model, "config.json").read_text()) | {"tie_word_embeddings": True}
    folder = shutil.copytree(tiny_model, tmp_path / "tied")
    (folder / "config.json").write_text(json.dumps(config))
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"Ship {number} sailed the sea. " * 4}) for number in range(60)))
    settings |= {
        "model": str(folder / "config.json"), "task": "pretraining", "batch_size": 4, "dtype": "float32",
        "task_options": {"train": str(texts), "texts": str(texts), "characters": 100, "block": 64, "rows_per_test": 3},
        "learning_rate": 1e-2, "method": "mora", "max_length": 64,
    }  # fmt: skip
    case = settings | {"output": str(tmp_path / "two")}
    launched = launch([case], tmp_path, "fsdp", loading="true")
    assert "start the run with `accelerate launch --fsdp_cpu_ram_efficient_loading false`" in launched.stderr
    launched = launch([case], tmp_path, "fsdp", loading="false")
    assert launched.returncode == 0, launched.stderr
    check_same(tmp_path / "two", train.train(train.TrainConfig(**settings | {"output": str(tmp_path / "one")})))


@pytest.mark.parametrize(
    "engine, words", [("", "in parts by FSDP, and cannot be read without"), ("DeepSpeed", "by Deep")]
)
def test_a_checkpoint_in_parts_is_read_by_its_own_engine_alone(engine, words, tmp_path):
    (tmp_path / "pytorch_model_fsdp_0").mkdir()
    checkpoints.check_form(tmp_path, "FSDP")
    with pytest.raises(UserError, match=words):
        checkpoints.check_form(tmp_path, engine)


@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed")
def test_a_run_whose_weights_deepspeed_has_split(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    settings |= {"batch_size": 4, "dtype": "float32", "learning_rate": 1e-2, "method": "mora"}
    case = settings | {"output": str(tmp_path / "two")}
    launch([case | {"ending": {"kill": 5}}], tmp_path, "deepspeed")
    assert checkpoints.latest(tmp_path / "two").name == "checkpoint-4"
    launched = launch([case], tmp_path, "deepspeed")
    assert launched.returncode == 0, launched.stderr
    check_same(tmp_path / "two", train.train(train.TrainConfig(**settings | {"output": str(tmp_path / "one")})))


def test_a_batch_that_cannot_be_shared_is_refused(settings, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="batch_size is 3, which 2 processes cannot share evenly"):
        ranks.share_of(3, "batch_size")


def test_sharding_that_would_be_passed_over_is_refused(settings, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="on accelerators only"):
        train.train(train.TrainConfig(**settings))
    with pytest.raises(UserError, match="FSDP shards AdamW only"):
        train.train(train.TrainConfig(**settings | {"method_options": {"optimizer": "muon"}}))


def test_the_loss_of_a_process_is_told_and_other_errors_are_not_hidden(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", lambda **_: SimpleNamespace(destroy_process_group=list))
    for words, kind in (("Connection closed by peer [127.0.0.1]:5", UserError), ("out of memory", RuntimeError)):
        with pytest.raises(kind), ranks.together():
            raise RuntimeError(words)
