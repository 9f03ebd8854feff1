"""Teach a model with one method: the whole of `mora train`, from settings to an adapter and a run.json."""

import shutil
import statistics
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mora_peft.errors import UserError, is_out_of_memory

from . import checkpoints, provenance, ranks
from .arguments import trainer_arguments
from .data import check_template, load_rows, spoken
from .files import whole_folder, write_json
from .forgetting import Forgetting
from .libraries import quiet_libraries
from .methods import METHODS, apply, first_rate, label
from .models import is_configuration, load_base, load_tokenizer, resolve_dtype
from .runs import NOTES, claim, is_finished, make_room, read_json, read_run
from .settings import Settings
from .spectrum import spectrum_of, weights_of
from .tasks import task_named, task_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from torch import Tensor
    from torch.nn import Module
    from transformers import TrainerCallback

    from .methods import Tuned
    from .tasks import Test
    from .trainer import Beside, RecipeTrainer

EXAMPLES = 8


@dataclass(kw_only=True)
class TrainConfig(Settings):
    """Teach a model with one method, and go on from the last checkpoint if interrupted.

    Args:
        method: How to fine-tune: mora, lora, full, prompt or any other of the README's table.
        method_options: Options of the method's PEFT configuration, such as operator and fold for mora; and optimizer:
            adamw, or muon for matrices, with AdamW for what else is trained.
        peft_config: JSON file with the configuration of any PEFT method, in place of `method`.
        learning_rate: Peak learning rate; without it a first guess of the method's own.
        trial: Learn and measure on the rows that a search of learning rates uses, which are never the test rows.
    """

    method: str = "mora"
    method_options: dict[str, Any] = field(default_factory=dict)
    peft_config: str | None = None
    learning_rate: float | None = None
    trial: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.peft_config is not None:
            self.method, self.method_options = "peft", {**self.method_options, "config": self.peft_config}
        if self.learning_rate is None:
            self.learning_rate = first_rate(self.method, self.method_options)
        if not self.learning_rate > 0:
            raise UserError(f"learning_rate must be above 0, not {self.learning_rate}.")
        if self.method == "prompt" and self.packing in ("all", "batch"):
            raise UserError("Rows behind a prompt of vectors cannot be kept apart: set packing to texts or none.")
        if self.method == "prompt" and is_configuration(self.model):
            raise UserError("A prompt needs a trained base, not a model from a configuration: choose another method.")


def train(
    config: TrainConfig,
    start: Path | None = None,
    callbacks: "Sequence[TrainerCallback]" = (),
    sampling: Literal["random", "sequential"] = "random",
    beside: "Beside | None" = None,
) -> Path:
    """Train as `config` says and return its output folder.

    `start` is the folder of an adapter of the same method and size, whose weights training goes on from; `callbacks`
    are the trainer's, besides the method's own. `sequential` takes the rows in the order that they are given in;
    `beside` is a further loss, see RecipeTrainer.

    The folder then holds `adapter/` (or `model/` for full fine-tuning) in safetensors, and `run.json`. An interrupted
    run goes on from its last whole checkpoint, to the same weights as if it had not been interrupted. A finished one is
    not repeated. A diverged one leaves a run.json that says so. Raises UserError for bad settings, bad data, a full
    disk, and a folder that holds a run with other settings.
    """
    try:
        with ranks.together():
            return _train(config, start, callbacks, sampling, beside)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"There is not enough memory for {config.batch_size} rows of up to {config.max_length} tokens a step: "
            "halve batch_size and double gradient_accumulation (the same run, but for rounding), or set "
            "gradient_checkpointing, and run the command again, which goes on from the last checkpoint; where it "
            "happened while measuring, halve evaluate_batch_size. "
            f"`mora inspect {config.model} --plan` says what a step needs."
        ) from error


def check_inputs(config: TrainConfig) -> None:
    """Raise the UserError that `train` would for its task, its rows, or a model without a tokenizer; keep nothing."""
    quiet_libraries()
    _, learned, measured, _ = _rows(config)
    if config.forgetting_data:
        Forgetting(config)
    tokenizer = load_tokenizer(config.model)
    for rows in filter(None, (learned, measured)):
        check_template(rows, tokenizer)


def _train(
    config: TrainConfig,
    start: Path | None,
    callbacks: "Sequence[TrainerCallback]",
    sampling: str,
    beside: "Beside | None",
) -> Path:
    output = Path(config.output)
    if not config.fresh and is_finished(config):
        ranks.say(f"{output} holds this run already: {_summary(read_run(output))}")
        return output
    make_room(config)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    trainer, tuned, tests, forgetting, start_weights = _prepare(config, start, callbacks, sampling, beside)
    # Only now is the run known to be possible; a mistyped one leaves no trace.
    if ranks.is_first():
        claim(config)
    resume = checkpoints.latest(output)
    if resume:
        checkpoints.check_form(resume, trainer.writes_parts)
        ranks.say(f"Going on from {resume}.")
    if forgetting:
        forgetting.before(trainer.model, trainer.processing_class)
    from .trainer import Diverged

    trainer.args.eval_on_start &= resume is None and not config.trial
    status, message = "finished", None
    try:
        if resume and resume.name == f"checkpoint-{config.steps}":
            trainer.restore(resume)
        else:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        trainer.check_weights()
    except Diverged as error:
        status, message = "diverged", str(error)
        if last := checkpoints.latest(output):
            message += f" {last.name} holds the weights of an earlier step."
    kept = trainer.state.global_step
    best = checkpoints.best(output) if status == "finished" and config.keep == "best" else None
    if best:
        trainer.take_weights(best)
        kept = checkpoints.step_of(best)
        ranks.say(f"Keeping the weights of step {kept}, whose loss is the lowest.")
    if status == "finished" and forgetting:
        forgetting.after(trainer.model, trainer.processing_class)
    gathered = trainer.whole_state(of_base=_saves_model(config))
    if ranks.is_first():
        _finish(config, trainer, tuned, start_weights, gathered, {
            "status": status,
            "message": message,
            "kept_step": kept,
            "created": started,
            "forgetting": forgetting.found if forgetting else None,
            "test_rows": len(tests[0].rows) if tests else None,
            "examples": _examples(output, tests),
        })  # fmt: skip
    ranks.wait()
    return output


def _finish(
    config: TrainConfig,
    trainer: "RecipeTrainer",
    tuned: "Tuned",
    start_weights: Any,
    gathered: "dict[str, Tensor] | None",
    found: dict[str, Any],
) -> None:
    """Save what was learned and run.json, and remove what is then of no use. `gathered`: weights that were sharded."""
    output, whole = Path(config.output), _saves_model(config)
    artifact = output / ("model" if whole else "adapter")
    spectrum = None
    if found["status"] == "finished" and not config.trial:
        spectrum = spectrum_of(trainer.model, before=start_weights) if gathered is None else None
        with whole_folder(artifact) as folder:
            _saved(trainer.model, whole).save_pretrained(folder, state_dict=gathered)
            trainer.processing_class.save_pretrained(folder)
    result = _result(config, trainer, tuned, artifact) | found | {"spectrum": spectrum}
    write_json(output / "run.json", result)
    for leftover in output.glob("checkpoint-*") if found["status"] == "finished" or config.trial else []:
        shutil.rmtree(leftover)
    for leftover in NOTES:
        (output / leftover).unlink(missing_ok=True)
    print(f"{_summary(result)} -> {artifact if artifact.exists() else output / 'run.json'}", flush=True)


class _Session(NamedTuple):
    """All that a run works with.

    `tests` is empty where nothing but the loss is measured; `start` holds weights of a base that is itself trained.
    """

    trainer: "RecipeTrainer"
    tuned: "Tuned"
    tests: "list[Test]"
    forgetting: Forgetting | None
    start: "dict[str, Tensor] | None"


def _prepare(
    config: TrainConfig,
    start: Path | None = None,
    callbacks: "Sequence[TrainerCallback]" = (),
    sampling: str = "random",
    beside: "Beside | None" = None,
) -> _Session:
    """Load rows and model, and build the trainer, without leaving a trace on the disk."""
    import torch
    from transformers import PrinterCallback, set_seed

    from .adapters import go_on_from
    from .embeddings import check_output_layer, train_embeddings
    from .progress import Progress
    from .together import Together, can_stand_together
    from .trainer import RecipeTrainer

    quiet_libraries()
    options, train_rows, eval_rows, tests = _rows(config)
    forgetting = Forgetting(config) if config.forgetting_data else None

    method = METHODS[config.method]
    dtype = resolve_dtype(config.dtype)
    set_seed(config.seed)
    embeddings = getattr(options, "train_embeddings", False)
    whole = method.trains_base or embeddings
    base, tokenizer = load_base(config.model, torch.float32 if whole else dtype)
    if method.trains_base and getattr(base, "is_quantized", False):
        raise UserError(f"{config.method} trains the base's own weights, but {config.model} is quantized: adapt it.")
    for rows in filter(None, (train_rows, eval_rows)):
        check_template(rows, tokenizer)
    tuned = apply(config.method, base, config.r, config.target_modules, config.method_options)
    ranks.check_optimizer(own=tuned.optimizer is not None)
    if embeddings and (count := train_embeddings(tuned.model)):
        note = f"{count:,} weights of embeddings and output layer are trained beside it"
        tuned = replace(tuned, budget_note="; ".join(filter(None, (tuned.budget_note, note))))
    check_output_layer(tuned.model)
    if start is not None:
        go_on_from(tuned.model, start)

    def measure() -> dict[str, float]:
        metrics = {}
        for test in tests:
            found, answers = test.run(tuned.model, tokenizer, config.evaluate_batch_size)
            metrics |= found
            if "bits" in found:
                metrics["bits_per_parameter"] = found["bits"] / tuned.trainable_parameters
            if answers and test is tests[0]:
                _note_answers(Path(config.output), answers, before=trainer.state.global_step == 0)
        return metrics

    arguments = trainer_arguments(
        config,
        autocast=whole and dtype == torch.bfloat16,
        measured=eval_rows is not None,
        texts="text" in train_rows.column_names,
        sampling=sampling,
    )
    trainer = RecipeTrainer(
        model=tuned.model,
        args=arguments,
        train_dataset=train_rows.select_columns(_columns(train_rows)),
        eval_dataset=eval_rows.select_columns(_columns(eval_rows)) if eval_rows is not None else None,
        processing_class=tokenizer,
        data_collator=Together() if config.packing == "batch" and can_stand_together(tuned.model) else None,
        measure=measure if tests else None,
        keep_best=config.keep == "best",
        beside=beside,
        callbacks=[*([Progress()] if ranks.is_first() else []), *tuned.callbacks, *callbacks],
        optimizers=(tuned.optimizer(arguments) if tuned.optimizer else None, None),
    )
    trainer.remove_callback(PrinterCallback)
    ranks.check_sharding(trainer.is_fsdp_enabled, embeddings and not method.trains_base)
    if eval_rows is not None and len(trainer.eval_dataset) < len(eval_rows):
        lost = len(eval_rows) - len(trainer.eval_dataset)
        ranks.say(f"{lost} of {len(eval_rows)} rows have prompts that fill max_length, and count in no loss.")
    return _Session(trainer, tuned, tests, forgetting, weights_of(tuned.model) if method.trains_base else None)


def _rows(config: TrainConfig) -> "tuple[Any, Dataset, Dataset | None, list[Test]]":
    """The task's options, the rows to learn, the rows whose loss is measured (None: none are), and the tests."""
    from .tasks import tuning

    task = task_named(config.task) if config.task else None
    options = task_options(config.task, config.task_options) if task else None
    learned = task.rows(options, config.data) if task else load_rows(config.data)
    if config.trial:
        learned, tests = getattr(task, "tuning", tuning)(options, learned)
        return options, learned, tests[0].rows, []
    if task is None:
        measured = load_rows(config.eval_data) if config.eval_data else None
        if measured is not None and config.evaluate_rows:
            measured = measured.select(range(min(config.evaluate_rows, len(measured))))
        return options, learned, measured, []
    tests = [test.limited(config.evaluate_rows) for test in task.tests(options, learned, config.eval_data)]
    return options, learned, tests[0].rows, tests


def _columns(rows: "Dataset") -> list[str]:
    return [name for name in ("prompt", "completion", "text") if name in rows.column_names]


def _result(config: TrainConfig, trainer: "RecipeTrainer", tuned: "Tuned", artifact: Path) -> dict[str, Any]:
    """The run as run.json tells it, in the schema that `mora report` reads."""
    logs = trainer.state.log_history
    losses = [entry for entry in logs if "loss" in entry]
    return {
        "schema": 1,
        "run": Path(config.output).name,
        "task": config.task or "data",
        "metric": task_named(config.task).METRIC if config.task else "loss",
        "method": config.method,
        "label": label(config.method, config.method_options),
        "seed": config.seed,
        "config": asdict(config),
        "fingerprint": provenance.fingerprint(asdict(config)),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "device": provenance.device(),
        "budget_parameters": tuned.budget_parameters,
        "trainable_parameters": tuned.trainable_parameters,
        "budget_note": tuned.budget_note,
        "adapter_bytes": sum(file.stat().st_size for file in artifact.glob("*.safetensors")),
        "steps": trainer.state.global_step,
        "tokens": trainer.state.num_input_tokens_seen,
        "step_seconds_median": statistics.median(entry["step_seconds"] for entry in losses) if losses else None,
        "peak_memory_bytes": provenance.peak_memory_bytes(),
        "history": [{name: entry[name] for name in ("step", "loss", "learning_rate")} for entry in losses],
        "evaluations": [
            {"step": entry["step"]} | {name[5:]: entry[name] for name in entry if name.startswith("eval_")}
            for entry in logs
            if any(name.startswith("eval_") for name in entry)
        ],
    }


def _saves_model(config: TrainConfig) -> bool:
    """Whether a run leaves a whole model: where the base has changed, or was random and is nowhere else."""
    return METHODS[config.method].trains_base or is_configuration(config.model)


def _saved(model: "Module", whole: bool) -> "Module":
    """The adapter, or the whole model with its adapter merged."""
    return model.merge_and_unload() if whole and hasattr(model, "merge_and_unload") else model


def _note_answers(output: Path, answers: list[str], before: bool) -> None:
    """Keep the answers of the untrained model, and of the last measurement, for the examples."""
    if ranks.is_first():
        write_json(output / ("before.json" if before else "after.json"), answers)


def _examples(output: Path, tests: "list[Test]") -> list[dict[str, str]]:
    """The first rows of the first test with the answers before and after training, where it has answers."""
    answers = {name: read_json(output / f"{name}.json") for name in ("before", "after")}
    if not tests or answers["after"] is None:
        return []
    rows, before = tests[0].rows, answers["before"] or [""] * len(tests[0].rows)
    return [
        {"prompt": spoken(row["prompt"]), "expected": spoken(row["completion"]), "before": first, "after": last}
        for row, first, last, _ in zip(rows, before, answers["after"], range(EXAMPLES), strict=False)
    ]


def _summary(run: dict[str, Any]) -> str:
    """A run in one line: what it reached, by which method, in how many steps."""
    if run["status"] != "finished":
        return f"{run['label']} {run['status']}: {run['message']}"
    ends = run["evaluations"][:1] + run["evaluations"][1:][-1:]
    reached = [
        f"{name.replace('_', ' ')} " + " -> ".join(f"{entry[name]:.3f}" for entry in ends)
        for name in ("exact_match", "character_accuracy", "loss")
        if ends and name in ends[-1]
    ]
    return f"{run['label']}, {run['steps']} steps" + "".join(f", {text}" for text in reached)
