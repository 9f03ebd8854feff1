"""Documents in, a model that knows them out, with proof: the whole of `mora teach`, from a folder to an adapter."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError
from mora_peft.recipes import provenance
from mora_peft.recipes.adapters import check_output, put_on, read_adapter
from mora_peft.recipes.data import read_rows
from mora_peft.recipes.files import write_json
from mora_peft.recipes.libraries import quiet_libraries
from mora_peft.recipes.methods import label
from mora_peft.recipes.models import load_base, load_tokenizer, resolve_dtype
from mora_peft.recipes.runs import read_run
from mora_peft.recipes.train import train
from mora_peft.tuner.files import CONFIG, WEIGHTS

from .memory import check_memory
from .prepare import Material, learnable, prepared, question_sets, teaching, write_general, write_rows
from .proof import by, means, measured
from .questions import nearness
from .rows import scheduled
from .settings import FEW, TeachConfig

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

    from mora_peft.recipes.adapters import Adapter

    from .keeping import Keeping

CLAIM = "teach.json"  # names what a folder belongs to, from its first moment on
PROOF, PAGE = "proof.json", "proof.html"


def teach(config: TeachConfig) -> Path:
    """Teach as `config` says and return its output folder, which then is an adapter with its proof beside it.

    An interrupted run goes on from where it was. Raises UserError for a folder without documents, a model that does
    not fit, and an output folder that holds something else.
    """
    quiet_libraries()
    began = time.monotonic()
    output = Path(config.output)
    earlier = _earlier(config)
    model_name = config.model or earlier.config.base_model_name_or_path
    mark = _checked_mark(config)
    check_memory(model_name, config.dtype)
    tokenizer = load_tokenizer(model_name)
    made = prepared(config)
    # Only now is the teaching known to be possible; a mistyped one leaves no trace.
    if config.fresh and (output / CLAIM).is_file():
        shutil.rmtree(output)
    is_new = not (output / CLAIM).is_file()
    write_json(output / CLAIM, {"fingerprint": mark, "model": model_name, "config": asdict(config)})
    write_json(output / "reading.json", {"files": made.summary.entries, "secrets": made.secrets})
    try:
        made, sets, before, plan = _begun(config, model_name, made, earlier)
    except UserError:
        if is_new:  # nothing was taught yet, and once it is put right the same command must find an empty folder
            shutil.rmtree(output)
        raise

    methods = [(config.method, config.method_options)] + ([(config.versus, {})] if config.versus else [])
    results = []
    for number, (method, options) in enumerate(methods):
        folder = output / ("training" if number == 0 else f"versus-{method}")
        keeping = _keeping(config, tokenizer)
        results.append(_trained(config, folder, model_name, method, options, plan["steps"], earlier, keeping))
        results[-1]["after"] = _remembered(
            folder / "answers.json", lambda f=folder: _asked_anew(f, model_name, config, sets)
        )
        _say_recall(results[-1]["label"], sets, results[-1]["after"])
    _publish(output / "training" / "adapter", output)
    result = _result(config, model_name, made, plan, sets, before, results)
    result["seconds"] = _remembered(output / "rows" / "took.json", lambda: round(time.monotonic() - began))
    write_json(output / PROOF, result)
    from .page import write_page

    print(f"\n{write_page(result, output / PAGE)}\nTalk to it: mora chat {output}", flush=True)
    _afterwards(config, model_name)
    return output


def _begun(
    config: TeachConfig, model_name: str, made: Material, earlier: "Adapter | None"
) -> tuple[Material, dict[str, list], dict[str, list], dict[str, Any]]:
    """Find how many facts the time allows, ask the model before it is taught, write the rows to learn, and plan.

    Returns what is taught, the questions, the answers to them, and the plan; what is done is not repeated.
    """
    from .training import facts_in_time, planned_steps, step_seconds

    rows = Path(config.output) / "rows"
    base, tokenizer = load_base(model_name, resolve_dtype(config.dtype))
    if not (rows / "kept.jsonl").is_file():
        print("Taking general text, on which the model is kept as it is.", flush=True)
        write_general(config, base, tokenizer)
    seconds = None
    if config.minutes:
        recall, texts = learnable(config, made, tokenizer)
        some = scheduled(recall, texts, config)
        timed = partial(step_seconds, config, base, tokenizer, some, _keeping(config, tokenizer))
        seconds = _remembered(rows / "seconds.json", timed)
        if config.facts is None:
            fitting = facts_in_time(config, seconds, len(made.facts), len(recall), len(texts))
            _say_fitting(config, fitting, len(made.facts))
            made = teaching(made, fitting, config)
    sets = question_sets(config, made, tokenizer, earlier)
    start = put_on(earlier, base) if earlier else base
    if not (rows / "before.json").is_file():
        print(f"Asking {sum(map(len, sets.values()))} questions before anything is taught.", flush=True)
    before = _remembered(rows / "before.json", partial(_answered, start, tokenizer, sets))
    _say_recall("Before", sets, before)

    def planned() -> dict[str, Any]:
        found = write_rows(config, made, sets, tokenizer, earlier)
        return found | {"steps": planned_steps(config, found["a_pass"], seconds)}

    plan = _remembered(rows / "plan.json", planned)
    _say_plan(config, plan, len(made.facts))
    return made, sets, before, plan


def _keeping(config: TeachConfig, tokenizer: "PreTrainedTokenizerBase") -> "Keeping":
    from .keeping import Keeping

    rows = read_rows(str(Path(config.output) / "rows" / "kept.jsonl"))
    return Keeping(rows, tokenizer, config.general_share * config.batch_size, config.general_weight, config.seed)


def _trained(
    config: TeachConfig,
    folder: Path,
    model: str,
    method: str,
    options: dict,
    steps: int,
    earlier: "Adapter | None",
    keeping: "Keeping",
) -> dict[str, Any]:
    """Train in `folder`, and say how it went."""
    from .training import EnoughLearned, train_config

    print(f"\nTeaching with {label(method, options)}:", flush=True)
    watch = EnoughLearned(config.minutes)
    settings = train_config(config, folder, model, method, options, steps)
    start = earlier.folder if earlier and method == config.method else None
    train(settings, start, [watch], "sequential", keeping)
    run = read_run(folder)
    if run["status"] != "finished":
        raise UserError(f"{run['label']} {run['status']}: {run['message']} Set a lower --learning_rate.")
    if watch.reason:
        print(f"Stopped at step {run['steps']} of {steps}: {watch.reason}.", flush=True)
        write_json(folder / "stopped.json", watch.reason)
    names = ("label", "method", "steps", "tokens", "trainable_parameters", "adapter_bytes", "step_seconds_median",
             "evaluations", "history", "forgetting", "peak_memory_bytes")  # fmt: skip
    found = {name: run[name] for name in names}
    return found | {
        "learning_rate": settings.learning_rate, "planned_steps": steps,
        "stopped": json.loads((folder / "stopped.json").read_text()) if (folder / "stopped.json").is_file() else None,
    }  # fmt: skip


def _asked_anew(folder: Path, model: str, config: TeachConfig, sets: dict[str, list]) -> dict[str, list]:
    base, tokenizer = load_base(model, resolve_dtype(config.dtype))
    return _answered(put_on(read_adapter(folder / "adapter"), base), tokenizer, sets)


def _answered(model: "Module", tokenizer: "PreTrainedTokenizerBase", sets: dict[str, list]) -> dict[str, list]:
    return {name: measured(model, tokenizer, rows) for name, rows in sets.items()}


def _result(
    config: TeachConfig, model_name: str, made: Material, plan: dict, sets: dict, before: dict, results: list[dict]
) -> dict[str, Any]:
    """The proof as proof.json tells it; the page is made of nothing else."""
    scored = {}
    for name, rows in sets.items():
        columns = {"before": before[name]} | {result["method"]: result["after"][name] for result in results}
        scored[name] = {
            "means": {column: means(scores) for column, scores in columns.items()},
            "documents": {column: by(rows, scores, "document") for column, scores in columns.items()},
            "kinds": {column: by(rows, scores, "kind") for column, scores in columns.items()},
            "questions": [
                {field: row[field] for field in ("question", "source", "document", "kind", "completion")}
                | {column: scores[number] for column, scores in columns.items()}
                for number, row in enumerate(rows)
            ],
        }
    wordings = read_rows(str(Path(config.output) / "rows" / "taught.jsonl"), also=("kind",))
    near = _nearness(sets["taught"], [row["prompt"] for row in wordings if row["kind"] != "passage"])
    return {
        "schema": 1,
        "model": model_name,
        "config": asdict(config),
        "files": made.summary.entries,
        "titles": {document.path: document.title for document in made.documents},
        "secrets": made.secrets,
        "characters": sum(len(document.text()) for document in made.documents),
        "facts": len(made.facts),
        "facts_found": len(made.found),
        "rows": plan["rows"],
        "nearness": near,
        "methods": [{name: value for name, value in result.items() if name != "after"} for result in results],
        "sets": scored,
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "device": provenance.device(),
    }


def _nearness(asked: list[dict], prompts: list[str]) -> float | None:
    """How much of the held-out questions' wording stands in one taught wording, on average; see `nearness`."""
    found = [nearness(row["question"], prompts) for row in asked[:50]]
    return sum(found) / len(found) if found else None


def _earlier(config: TeachConfig) -> "Adapter | None":
    """The adapter to continue from, whose method, size and options become the settings; None where there is none."""
    if config.continue_from is None:
        return None
    found = read_adapter(config.continue_from)
    base = found.config.base_model_name_or_path
    if config.model and base and Path(config.model).name != Path(base).name:
        print(f"Warning: {config.continue_from} was trained on {base}, and now goes on on {config.model}.", flush=True)
    claim = Path(config.continue_from) / CLAIM
    if claim.is_file():
        known = json.loads(claim.read_text(encoding="utf-8"))["config"]
        config.method, config.method_options, config.r = known["method"], known["method_options"], known["r"]
    elif found.config.peft_type == "LORA":
        config.method, config.method_options, config.r = "lora", {}, found.config.r
    elif found.config.peft_type == "MORA":
        options = {name: getattr(found.config, name) for name in ("operator", "layout", "fold")}
        config.method, config.r = "mora", found.config.r
        config.method_options = {name: value for name, value in options.items() if value}
    return found


def _checked_mark(config: TeachConfig) -> str:
    """A fingerprint of settings and documents; UserError where the output folder holds something else."""
    output = Path(config.output)
    check_output(output, CLAIM)
    if output.resolve().is_relative_to(Path(config.folder).resolve()):
        raise UserError(f"{output} lies in {config.folder}, and would be read as documents: give another --output.")
    # Under names whose files are looked into.
    sources = {"data": config.folder, "eval_data": config.questions, "forgetting_data": config.general}
    further = [config.control, config.continue_from and str(Path(config.continue_from) / WEIGHTS)]
    sources["task_options"] = {"further": [source for source in further if source]}
    beside = ("output", "fresh", "serve", "merge", "versus")
    mark = provenance.fingerprint(
        {name: value for name, value in asdict(config).items() if name not in beside} | sources
    )
    claim = output / CLAIM
    if not config.fresh and claim.is_file() and json.loads(claim.read_text(encoding="utf-8"))["fingerprint"] != mark:
        raise UserError(
            f"{output} holds a teaching with other settings or other documents: choose another --output, or start anew "
            "with --fresh."
        )
    return mark


def _publish(adapter: Path, output: Path) -> None:
    """Make the output folder itself the adapter, so that chat, serve, merge and evaluate take it as it is."""
    files = [file for file in adapter.iterdir() if file.name != CONFIG]
    # Last the file that makes a folder an adapter.
    for file in [*files, adapter / CONFIG]:
        partial = output / f"{file.name}.partial"
        shutil.copy(file, partial)
        partial.replace(output / file.name)


def _afterwards(config: TeachConfig, model: str) -> None:
    output = Path(config.output)
    if config.merge and not (output / "merged" / "config.json").is_file():
        from mora_peft.recipes.merge import MergeConfig, merge

        merge(MergeConfig(adapter=str(output), output=str(output / "merged"), base=model))
    if config.serve:
        from mora_peft.recipes.serving.launch import ServeConfig, serve

        serve(ServeConfig(model=model, adapters=str(output.resolve().parent)))


def _remembered(file: Path, make: Callable[[], Any]) -> Any:
    """The JSON in `file`, or what `make` gives, which is kept there for a run that is interrupted later."""
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    found = make()
    write_json(file, found)
    return found


def _say_recall(who: str, sets: dict[str, list], scores: dict[str, list]) -> None:
    told = ", ".join(f"{name} {means(scores[name])['exact']:.0%} of {len(rows)}" for name, rows in sets.items() if rows)
    print(f"{who}: exact answers to questions: {told}", flush=True)


def _say_fitting(config: TeachConfig, fitting: int, facts: int) -> None:
    if fitting < facts:
        print(
            f"{config.minutes:g} minutes are enough for {fitting} of {facts} facts; the others are learned as text "
            "alone. Give more minutes to teach more, or --facts to choose.",
            flush=True,
        )


def _say_plan(config: TeachConfig, plan: dict[str, Any], facts: int) -> None:
    rows, passes = sum(plan["rows"].values()), plan["steps"] * config.batch_size / plan["a_pass"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan["rows"].items())
    print(f"Learning {rows} rows ({kinds}) in {plan['steps']} steps, {passes:.1f} passes.", flush=True)
    if config.minutes and passes < FEW and facts:
        print(f"{config.minutes:g} minutes are short for {facts} facts: the model will know few of them.", flush=True)
