"""Training: interrupted runs end in the same weights, nothing is half-written, and nothing is done twice."""

import errno
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mora_peft.cli.main import main
from mora_peft.errors import UserError
from mora_peft.recipes import checkpoints, evaluate, provenance, train
from mora_peft.recipes.methods import METHODS
from mora_peft.recipes.runs import DIVERGED
from mora_peft.recipes.trainer import RecipeTrainer, labelled_loss

# Dropout where a method has it, so that a resumed run must also continue the random numbers.
OPTIONS = {
    "lora": {"lora_dropout": 0.2},
    "mora": {"mora_dropout": 0.2},
    # Merges before and after the checkpoint that a run is resumed from.
    "relora": {"every": 3, "rewarm": 1},
    "remora": {"every": 3, "rewarm": 1},
}


def weights(output: str | Path) -> dict[str, torch.Tensor]:
    [file] = [file for name in ("adapter", "model") for file in Path(output, name).glob("*.safetensors")]
    return load_file(file)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_at(monkeypatch, step: int) -> None:
    """Interrupt the next training, as Ctrl-C does, in the step after `step`."""
    original = RecipeTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(RecipeTrainer, "training_step", training_step)


@pytest.fixture
def whole(settings, tmp_path):
    """A run that was never interrupted, by method."""

    def run(method: str, **options) -> Path:
        options = options or OPTIONS.get(method, {})
        own = {"output": str(tmp_path / "whole"), "method": method, "method_options": options}
        return train.train(train.TrainConfig(**settings | own))

    return run


MUON = {"operator": "sharing", "optimizer": "muon"}


@pytest.mark.parametrize(
    ("method", "options"),
    [*((name, OPTIONS.get(name, {})) for name in ("mora", "lora", "lora+", "full", "prompt", "relora", "remora")),
     ("mora", MUON), ("full", {"optimizer": "muon"}), ("remora", OPTIONS["remora"] | {"optimizer": "muon"})],
)  # fmt: skip
def test_an_interrupted_run_ends_in_the_same_weights(method, options, settings, whole, monkeypatch):
    expected = whole(method, **options)
    config = train.TrainConfig(**settings, method=method, method_options=options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 5)
        train.train(config)
    assert checkpoints.latest(Path(config.output)).name == "checkpoint-4"
    assert not (Path(config.output) / "run.json").exists()
    train.train(config)
    assert same(weights(config.output), weights(expected))
    resumed, uninterrupted = train.read_run(Path(config.output)), train.read_run(expected)
    for name in ("history", "evaluations", "examples", "tokens", "steps"):
        assert resumed[name] == uninterrupted[name], name


def test_a_checkpoint_cut_short_is_passed_over(settings, whole, monkeypatch):
    expected = whole("lora")
    config = train.TrainConfig(**settings, method="lora", method_options=OPTIONS["lora"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 5)
        train.train(config)
    last = Path(config.output) / "checkpoint-4" / "adapter_model.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    assert checkpoints.latest(Path(config.output)).name == "checkpoint-2"
    train.train(config)
    assert same(weights(config.output), weights(expected))


def test_a_full_disk_leaves_the_checkpoint_before(settings, whole, monkeypatch):
    expected = whole("lora")
    config = train.TrainConfig(**settings, method="lora", method_options=OPTIONS["lora"])
    original = RecipeTrainer._save_optimizer_and_scheduler

    def fill_up(self, folder):
        if self.state.global_step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "_save_optimizer_and_scheduler", fill_up)
        with pytest.raises(UserError, match=r"disk is full.*checkpoint-2 is whole"):
            train.train(config)
    left = sorted(path.name for path in Path(config.output).iterdir() if path.is_dir())
    assert left == ["checkpoint-2"]
    train.train(config)
    assert same(weights(config.output), weights(expected))


def test_running_out_of_memory_says_what_to_change(settings, monkeypatch):
    def training_step(self, *args, **kwargs):
        return torch.empty(2**50)

    monkeypatch.setattr(RecipeTrainer, "training_step", training_step)
    with pytest.raises(UserError, match=r"not enough memory for 3 rows.*gradient_accumulation.*inspect"):
        train.train(train.TrainConfig(**settings))


@pytest.mark.parametrize("method", ["mora", "remora"])
def test_the_best_checkpoint_is_kept_and_ends_the_run(method, settings, tmp_path, monkeypatch):
    # The loss is set to fall and then to rise for good: by the end, the best checkpoint would long have gone.
    own = {
        "method": method,
        "method_options": OPTIONS[method] if method == "remora" else {},
        "keep": "best",
        "steps": 9,
        "evaluate_every": 1,
        "checkpoint_every": 1,
        "schedule": "constant_with_warmup",
        "warmup": 0,
    }
    config = train.TrainConfig(**settings | own)
    original, losses = RecipeTrainer.evaluate, {}

    def evaluate_worse(self, *args, **kwargs):
        metrics = original(self, *args, **kwargs)
        step = self.state.global_step
        metrics["eval_loss"] = losses[step] = abs(step - 4.0)
        self.state.log_history[-1]["eval_loss"] = losses[step]
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "evaluate", evaluate_worse)
        output = train.train(config)
    run = train.read_run(output)
    assert run["kept_step"] == 4 and run["steps"] == 9
    assert [point["step"] for point in run["history"]] == list(range(1, 10))
    short = settings | own | {"keep": "last", "steps": 4, "output": str(tmp_path / "short")}
    assert same(weights(output), weights(train.train(train.TrainConfig(**short))))


def test_every_checkpoint_must_be_measured_to_find_the_best(settings):
    with pytest.raises(UserError, match=r"checkpoint_every \(2\) is not a multiple of evaluate_every \(3\)"):
        train.TrainConfig(**settings | {"keep": "best"})


def test_a_run_stopped_at_its_very_end_is_completed(settings, whole, monkeypatch):
    expected = whole("lora")
    config = train.TrainConfig(**settings, method="lora", method_options=OPTIONS["lora"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_result", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train.train(config)
    train.train(config)
    assert same(weights(config.output), weights(expected))
    assert train.read_run(Path(config.output))["evaluations"] == train.read_run(expected)["evaluations"]


def test_a_file_that_cannot_grow_is_a_full_disk(tmp_path):
    """What safetensors, torch.save and Python raise when the operating system refuses to write more."""
    code = """
import resource, signal, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from mora_peft.errors import is_disk_full
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
big = torch.zeros(100_000)
file = sys.argv[1]
plain = lambda: Path(file).write_bytes(bytes(9999))
for save in (lambda: save_file({"x": big}, file), lambda: torch.save(big, file), plain):
    try:
        save()
    except Exception as error:
        assert is_disk_full(error), repr(error)
    else:
        raise AssertionError("nothing was raised")
assert not is_disk_full(RuntimeError("something else"))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=True, timeout=120)


def test_a_finished_run_is_not_repeated_and_another_is_refused(settings, monkeypatch):
    config = train.TrainConfig(**settings, method="lora")
    output = train.train(config)
    first = (output / "run.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "train", None)  # calling it would fail
        train.train(config)
    assert (output / "run.json").read_bytes() == first
    other = train.TrainConfig(**settings | {"steps": 4}, method="lora")
    with pytest.raises(UserError, match=r"another steps.*--fresh"):
        train.train(other)
    train.train(train.TrainConfig(**asdict(other) | {"fresh": True}))
    assert train.read_run(output)["steps"] == 4


def test_data_with_other_contents_is_another_run(settings, tmp_path):
    data = tmp_path / "facts.csv"
    data.write_text("key,value\na,b\n")
    config = train.TrainConfig(**settings | {"data": str(data), "steps": 1}, method="lora")
    train.train(config)
    data.write_text("key,value\na,c\n")
    with pytest.raises(UserError, match="other contents"):
        train.train(config)


def test_a_run_that_diverges_is_recorded(settings):
    output = train.train(train.TrainConfig(**settings, method="lora", learning_rate=1e30))
    run = train.read_run(output)
    assert run["status"] == "diverged" and "nan" in run["message"]
    assert not (output / "adapter").exists()


def test_a_run_that_diverges_late_keeps_its_checkpoint_and_says_so(settings, monkeypatch, tmp_path):
    original = RecipeTrainer.training_step

    def ruined(self, *args, **kwargs):
        return original(self, *args, **kwargs) * (float("nan") if self.state.global_step >= 4 else 1)

    monkeypatch.setattr(RecipeTrainer, "training_step", ruined)
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(settings))
    assert main(["train", "--config", str(config), "--method", "lora"]) == DIVERGED
    assert "checkpoint-4 holds" in train.read_run(Path(settings["output"]))["message"]
    assert checkpoints.latest(Path(settings["output"])).name == "checkpoint-4"
    assert main(["train", "--config", str(config), "--method", "lora"]) == DIVERGED


def test_a_run_goes_on_with_its_batches_in_smaller_parts(settings, interrupted):
    """As the sentence about too little memory advises."""
    whole = settings | {"batch_size": 4, "task_options": {"facts": 4, "pairs": 4, "digits": 4}}
    expected = weights(train.train(train.TrainConfig(**whole | {"output": settings["output"] + "-whole"})))
    with interrupted(4):
        train.train(train.TrainConfig(**whole))
    smaller = {"batch_size": 2, "gradient_accumulation": 2, "gradient_checkpointing": True}
    found = weights(train.train(train.TrainConfig(**whole | smaller)))
    for name, tensor in expected.items():
        # Half a percent of what is learned: AdamW makes much of rounding where a gradient is next to nothing.
        torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=1e-4)


def test_when_checkpoints_are_written_matters_only_where_the_best_is_kept(settings):
    def marks(**options):
        config = settings | {"evaluate_every": 2} | options
        return {provenance.fingerprint(asdict(train.TrainConfig(**config, checkpoint_every=n))) for n in (2, 4)}

    settings.pop("checkpoint_every")
    assert len(marks()) == 1 and len(marks(keep="best")) == 2


def test_the_order_of_a_tasks_options_is_beside_the_point(settings, tmp_path):
    options = {}
    for name, text in (("texts", "one"), ("train", "two")):
        options[name] = str(tmp_path / f"{name}.jsonl")
        Path(options[name]).write_text(text)
    either = [options, dict(reversed(options.items()))]
    found = [asdict(train.TrainConfig(**settings)) | {"task_options": options} for options in either]
    assert len(set(map(provenance.fingerprint, found))) == 1


@pytest.mark.parametrize("options", [
    {"learning_rate": -1.0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"warmup": -1.0},
    {"weight_decay": -0.1}, {"max_grad_norm": -1.0},
], ids=str)  # fmt: skip
def test_numbers_that_mean_nothing(options, settings):
    [name] = options
    with pytest.raises(UserError, match=name):
        train.TrainConfig(**settings | options)


@pytest.mark.parametrize("step", [4, 7])
def test_weights_that_are_lost_are_never_saved(step, settings, monkeypatch):
    """A gradient that is not a number ruins the weights before any loss shows it; 7 is the last step."""
    original = RecipeTrainer.training_step

    def ruined(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        if self.state.global_step + 1 == step:
            next(p for p in self.model.parameters() if p.requires_grad).grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(RecipeTrainer, "training_step", ruined)
    output = train.train(train.TrainConfig(**settings | {"log_every": 50}, method="lora"))
    run = train.read_run(output)
    assert run["status"] == "diverged" and f"no longer finite after step {step}" in run["message"]
    assert not (output / "adapter").exists()


def test_a_disk_that_is_full_ends_a_run_with_one_sentence(settings, tmp_path):
    """Of a real process: no file may grow beyond the size that the optimizer's state has."""
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(settings))
    code = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); " \
        "from mora_peft.cli.main import main; sys.exit(main(sys.argv[1:]))"  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", code, "train", "--config", str(config)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert "The disk is full" in ended.stderr.splitlines()[-1]
    assert "free some space" in ended.stderr.splitlines()[-1]
    left = [path.name for path in Path(settings["output"]).rglob("*")]
    assert not any("partial" in name for name in left), left


def test_run_json_says_what_was_measured(settings):
    config = train.TrainConfig(**settings, method="lora", dtype="float32")
    output = train.train(config)
    run = train.read_run(output)
    assert [point["step"] for point in run["evaluations"]] == [0, 3, 6, 7]
    assert [point["step"] for point in run["history"]] == list(range(1, 8))
    assert run["trainable_parameters"] == run["budget_parameters"]
    assert run["adapter_bytes"] >= 4 * run["trainable_parameters"]
    assert min(run["tokens"], run["peak_memory_bytes"], run["step_seconds_median"]) > 0
    # `mora evaluate` measures the saved adapter as the run measured the one in memory.
    result = output / "evaluation.json"
    evaluate.evaluate(
        evaluate.EvaluateConfig(
            model=str(output / "adapter"), task="memorization", task_options=config.task_options, dtype="float32",
            output=str(result),
        )
    )  # fmt: skip
    metrics = json.loads(result.read_text())["metrics"]
    for name, value in metrics.items():
        if name != "perplexity":
            assert value == pytest.approx(run["evaluations"][-1][name], abs=1e-5), name


def test_facts_are_learned(settings):
    changes = {"steps": 150, "batch_size": 8, "task_options": {"facts": 4, "pairs": 0}, "evaluate_every": 150}
    output = train.train(train.TrainConfig(**settings | changes, method="full", learning_rate=1e-2))
    before, after = train.read_run(output)["evaluations"]
    assert before["exact_match"] == 0 and after["exact_match"] == 1
    assert train.read_run(output)["test_rows"] == 4
    for example in train.read_run(output)["examples"]:
        assert example["after"] == example["expected"] != example["before"]


def test_every_method_sees_the_same_rows_in_the_same_order(settings):
    orders = []
    for method in METHODS.keys() - {"peft"}:
        trainer, tuned = train._prepare(train.TrainConfig(**settings, method=method))[:2]
        assert all(p.dtype == torch.float32 for p in tuned.model.parameters() if p.requires_grad)
        orders.append([batch["input_ids"].tolist() for batch in trainer.get_train_dataloader()])
    assert all(order == orders[0] for order in orders)


def test_the_loss_is_the_models_own_over_the_labelled_tokens(settings):
    trainer, tuned = train._prepare(train.TrainConfig(**settings, method="lora", dtype="float32"))[:2]
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] == -100).any()
    loss, count = labelled_loss(tuned.model, batch)
    assert count == (batch["labels"][:, 1:] != -100).sum()
    assert loss.item() / count == pytest.approx(tuned.model(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize("lines", [['{"text": "One."}'] * 4, ['{"prompt": "a", "completion": "b"}'] * 4])
def test_plain_data_is_trained_and_measured_by_its_loss(lines, settings, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    changes = {"task": None, "task_options": {}, "data": str(file), "eval_data": str(file)}
    run = train.read_run(train.train(train.TrainConfig(**settings | changes, method="lora", learning_rate=1e-2)))
    losses = [point["loss"] for point in run["evaluations"]]
    assert losses[-1] < losses[0] and "exact_match" not in run["evaluations"][0]


def test_logs_pass_through(settings):
    output = train.train(train.TrainConfig(**settings | {"report_to": ["tensorboard"]}, method="lora"))
    assert list(output.rglob("events.out.tfevents*"))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": "no/such/model"}, "no/such/model could not be loaded"),
        ({"task": "memorisation"}, "expected one of .*memorization"),
        ({"task_options": {"fact": 3}}, "fact"),
        ({"method": "lore"}, "expected one of mora, remora"),
        ({"method_options": {"rank": 3}}, "rank"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"target_modules": ["attention"]}, "attention"),
        ({"task": None}, "nothing to learn"),
    ],
)
def test_bad_settings_get_one_sentence(changes, words, settings):
    with pytest.raises(UserError, match=words):
        train.train(train.TrainConfig(**{"method": "lora", **settings, **changes}))
    assert not Path(settings["output"]).exists()


def test_a_base_that_was_merged_into_is_saved_whole(settings):
    """ReMoRA's adapter alone is not what was learned: what is saved computes what the trained model did."""
    config = train.TrainConfig(**settings, method="remora", method_options=OPTIONS["remora"], learning_rate=3e-2)
    output = train.train(config)
    run = train.read_run(output)
    evaluated = evaluate.evaluate(
        evaluate.EvaluateConfig(
            model=str(output / "model"),
            task=config.task,
            task_options=config.task_options,
            dtype="float32",
            output=str(output / "evaluation.json"),
        )
    )
    metrics = json.loads(evaluated.read_text())["metrics"]
    last = run["evaluations"][-1]
    assert metrics["loss"] == pytest.approx(last["loss"], rel=1e-4)
    assert last["loss"] < 0.99 * run["evaluations"][0]["loss"]


def test_any_configuration_of_peft_from_a_file(settings, tmp_path):
    file = tmp_path / "small-lokr.json"
    file.write_text(json.dumps({"peft_type": "LOKR", "r": 2}))
    config = train.TrainConfig(**settings | {"steps": 2}, peft_config=str(file), learning_rate=1e-2)
    run = train.read_run(train.train(config))
    assert run["status"] == "finished" and run["label"] == "PEFT (small-lokr)"
    assert json.loads((Path(config.output) / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LOKR"


@pytest.mark.parametrize("packing, joined", [("texts", True), ("none", False)])
def test_texts_are_joined_so_that_nothing_is_cut_off(packing, joined, settings, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(4):
        (texts / f"{number}.txt").write_text(f"Ship {number} sailed " + "on and " * 10 * number + "away.")
    own = {"task": None, "task_options": {}, "data": str(texts), "max_length": 64, "packing": packing}
    trainer = train._prepare(train.TrainConfig(**settings | own, method="lora")).trainer
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    characters = sum(len(file.read_text()) for file in texts.iterdir())
    assert max(lengths) == 64
    assert (sum(lengths) >= characters) == joined
