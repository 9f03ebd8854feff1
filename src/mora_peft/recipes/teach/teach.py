"""Documents in, a model that knows them out, with proof: the whole of `mora teach`, from a folder to an adapter."""

import gc
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError
from mora_peft.recipes import provenance
from mora_peft.recipes.adapters import check_output, put_on, read_adapter
from mora_peft.recipes.data import read_rows
from mora_peft.recipes.files import write_json
from mora_peft.recipes.methods import label
from mora_peft.recipes.models import load_base, load_tokenizer, resolve_dtype
from mora_peft.recipes.train import quiet_libraries, read_run, train
from mora_peft.tuner.files import CONFIG, WEIGHTS

from .cleaning import cleaned
from .documents import Summary
from .facts import Fact, facts_of
from .general import general_rows
from .language import KNOWN
from .memory import check_memory
from .proof import by, means, measured
from .questions import ask, askable, nearness, own_questions
from .reading import read_folder
from .rows import as_prompt, mixed, passages, recall_rows, scheduled
from .secrets import secrets
from .settings import TeachConfig

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

CLAIM = "teach.json"  # names what a folder belongs to, from its first moment on
PROOF, PAGE = "proof.json", "proof.html"
_PROGRESS = 32  # questions that recall so far is measured on; they are no part of the proof
_CONTROL = 40


def teach(config: TeachConfig) -> Path:
    """Teach as `config` says and return its output folder, which then is an adapter with its proof beside it.

    An interrupted run goes on from where it was. Raises UserError for a folder without documents, a model that does
    not fit, and an output folder that holds something else.
    """
    from .training import planned_steps, step_seconds

    quiet_libraries()
    output = Path(config.output)
    earlier = _earlier(config)
    model_name = config.model or earlier.config.base_model_name_or_path
    _claim(config, model_name)
    check_memory(model_name, config.dtype)
    tokenizer = load_tokenizer(model_name)
    made = _made(config, tokenizer)

    base, _ = load_base(model_name, resolve_dtype(config.dtype))
    start = put_on(earlier, base) if earlier else base
    sets = _question_sets(config, made, tokenizer, earlier)
    before = _remembered(output / "rows" / "before.json", lambda: _answered(start, tokenizer, sets))
    _say_recall("Before", sets, before)
    plain_base = start.unload() if earlier else base
    taught = _remembered(
        output / "rows" / "plan.json", lambda: _rows(config, made, plain_base, tokenizer, earlier, output)
    )
    rows = read_rows(str(output / "rows" / "taught.jsonl"), also=("kind",))
    if "seconds" not in taught:
        taught["seconds"] = step_seconds(config, plain_base, tokenizer, rows) if config.minutes else None
        taught["steps"] = planned_steps(config, len(rows), taught["seconds"])
        write_json(output / "rows" / "plan.json", taught)
    _say_plan(config, taught, len(rows))
    del start, base, plain_base
    gc.collect()

    methods = [(config.method, config.method_options)] + ([(config.versus, {})] if config.versus else [])
    results = []
    for number, (method, options) in enumerate(methods):
        folder = output / ("training" if number == 0 else f"versus-{method}")
        results.append(_trained(config, folder, model_name, method, options, taught["steps"], earlier))
        results[-1]["after"] = _remembered(folder / "answers.json", lambda f=folder: _asked_anew(f, model_name, config, sets))
        _say_recall(results[-1]["label"], sets, results[-1]["after"])
    _publish(output / "training" / "adapter", output)
    result = _result(config, model_name, made, taught, sets, before, results)
    write_json(output / PROOF, result)
    from .page import write_page

    print(f"\n{write_page(result, output / PAGE)}\nTalk to it: mora chat {output}", flush=True)
    _afterwards(config, model_name)
    return output


@dataclass
class _Made:
    """What was made of the documents."""

    documents: list
    summary: Summary
    secrets: dict[str, dict[str, int]]
    facts: list[Fact]  # those that are taught
    unasked: int  # found, but not taught as rows of their own
    asked: list[Fact]
    progress: list[Fact]
    control: list[Fact]


def _made(config: TeachConfig, tokenizer: "PreTrainedTokenizerBase") -> _Made:
    """Read the folder, and find its facts; the summary is printed and kept in reading.json."""
    import random

    summary = Summary()
    documents = cleaned(read_folder(Path(config.folder), config.largest_megabytes, summary), summary)
    for document in documents:
        if document.language not in KNOWN:
            summary.note(
                document.path, "changed", "its language is not known here: of its facts, numbers and dates alone are asked"
            )
    every = askable([fact for document in documents for fact in facts_of(document)])
    facts = _spread(every, config.facts or len(every))
    if not facts:
        print("No facts were found that could be asked for: the documents are learned as text alone.", flush=True)
    order = facts[:]
    random.Random(config.seed).shuffle(order)
    count = min(_PROGRESS, len(order) // 5) if len(order) > 5 else 0
    folder = Path(config.control) if config.control else _own_control(documents)
    control = askable([fact for document in read_folder(folder, config.largest_megabytes, Summary()) for fact in facts_of(document)])
    found = secrets(documents)
    made = _Made(
        documents, summary, found, facts, len(every) - len(facts), order[count : count + config.asked],
        order[:count] or order[: min(len(order), _PROGRESS)], _spread(control, _CONTROL),
    )  # fmt: skip
    write_json(Path(config.output) / "reading.json", {"files": summary.entries, "secrets": found})
    print(f"Read {len(documents)} documents:", *summary.lines(), sep="\n", flush=True)
    for path, counts in found.items():
        told = ", ".join(f"{count} × {name}" for name, count in counts.items())
        print(f"Warning: {path} holds what look like secrets ({told}); whoever may ask the model may get them.")
    return made


def _own_control(documents: list) -> Path:
    """The folder of the package's own control page in the language that most documents have."""
    from collections import Counter
    from tempfile import mkdtemp

    language = Counter(document.language for document in documents).most_common(1)[0][0]
    source = Path(__file__).parent / "control" / f"{language if language in KNOWN else 'en'}.md"
    folder = Path(mkdtemp(prefix="mora-control-"))
    shutil.copy(source, folder)
    return folder


def _question_sets(config: TeachConfig, made: _Made, tokenizer, earlier) -> dict[str, list[dict[str, Any]]]:
    """The questions of the proof: about what is taught, the user's own, of the control, and of earlier teaching."""
    sets = {"taught": ask(made.asked, made.facts, tokenizer, config.seed)}
    if config.questions:
        sets["own"] = own_questions(config.questions, made.facts, tokenizer, config.seed)
    sets["control"] = ask(made.control, made.facts, tokenizer, config.seed)
    if earlier and (file := earlier.folder / "rows" / "questions.json").is_file():
        sets["earlier"] = json.loads(file.read_text(encoding="utf-8"))["taught"]
    write_json(Path(config.output) / "rows" / "questions.json", sets)
    return sets


def _rows(config: TeachConfig, made: _Made, base: "Module", tokenizer, earlier, output: Path) -> dict[str, Any]:
    """Write the rows to learn, to measure progress on, and of general text; return their counts."""
    recall, texts = [], []
    written = _written(config, made)
    for document in made.documents:
        own = [fact for fact in made.facts if fact.document == document.path]
        recall += recall_rows(document, own, tokenizer)
        recall += [
            as_prompt(tokenizer, row) | {"kind": "written", "document": document.path}
            for fact in own
            for row in written.get(fact, [])
        ]
        texts += passages(document, tokenizer, config.passage_tokens)
    kept, measured_texts = general_rows(config.general, base, tokenizer, config.passage_tokens)
    rows = mixed(recall, texts, kept, config.text_share, config.general_share, config.seed)
    if earlier and (file := earlier.folder / "rows" / "taught.jsonl").is_file():
        before = [row for row in read_rows(str(file), also=("kind",)) if row["kind"] != "general"]
        rows += [row | {"kind": "earlier"} for row in _spread(before, round(config.earlier_share * len(rows)))]
    progress = ask(made.progress, made.facts, tokenizer, config.seed) or rows[:_PROGRESS]
    held_out = {row["prompt"] for row in ask(made.asked + made.progress, made.facts, tokenizer, config.seed)}
    assert not held_out & {row["prompt"] for row in rows}, "a held-out wording is among the taught ones"
    folder = output / "rows"
    _write_lines(folder / "taught.jsonl", rows)
    _write_lines(folder / "schedule.jsonl", scheduled(rows, config.passes, config.batch_size, config.seed))
    _write_lines(folder / "progress.jsonl", [{name: row[name] for name in ("prompt", "completion")} for row in progress])
    _write_lines(folder / "general.jsonl", [{"text": text} for text in measured_texts])
    kinds: dict[str, int] = {}
    for row in rows:
        kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
    return {"rows": kinds}


def _written(config: TeachConfig, made: _Made) -> dict[Fact, list]:
    if config.writer is None:
        return {}
    from .wordings import key, questioned
    from .writer import Writer

    print(f"The documents' sentences go to {config.writer}, which writes further wordings.", flush=True)
    return Writer(config.writer, config.writer_model).rows(made.facts, {key(questioned(fact)) for fact in made.facts})


def _trained(config: TeachConfig, folder: Path, model: str, method: str, options: dict, steps: int, earlier) -> dict:
    """Train in `folder`, and say how it went."""
    from .training import EnoughLearned, train_config

    print(f"\nTeaching with {label(method, options)}:", flush=True)
    watch = EnoughLearned(config.minutes)
    settings = train_config(config, folder, model, method, options, steps)
    train(settings, earlier.folder if earlier and method == config.method else None, [watch], "sequential")
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


def _answered(model: "Module", tokenizer, sets: dict[str, list]) -> dict[str, list]:
    return {name: measured(model, tokenizer, rows) for name, rows in sets.items()}


def _result(config, model_name, made: _Made, taught, sets, before, results) -> dict[str, Any]:
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
        "facts_found": len(made.facts) + made.unasked,
        "rows": taught["rows"],
        "same_wording": 0,  # `_rows` stops otherwise
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


def _earlier(config: TeachConfig):
    """The adapter to continue from, whose method, size and options become the settings; None where there is none."""
    if config.continue_from is None:
        return None
    found = read_adapter(config.continue_from)
    claim = Path(config.continue_from) / CLAIM
    if claim.is_file():
        known = json.loads(claim.read_text(encoding="utf-8"))["config"]
        config.method, config.method_options, config.r = known["method"], known["method_options"], known["r"]
    return found


def _claim(config: TeachConfig, model: str) -> None:
    """Take the output folder for this teaching; UserError where it holds something else."""
    output = Path(config.output)
    if config.fresh and (output / CLAIM).is_file():
        shutil.rmtree(output)
    check_output(output, CLAIM)
    settings = {name: value for name, value in asdict(config).items() if name not in ("output", "fresh", "serve", "merge", "versus")}
    mark = provenance.fingerprint(settings | {"data": config.folder, "eval_data": config.questions, "forgetting_data": config.general})
    claim = output / CLAIM
    if claim.is_file() and json.loads(claim.read_text(encoding="utf-8"))["fingerprint"] != mark:
        raise UserError(
            f"{output} holds a teaching with other settings or other documents: choose another --output, or start anew "
            "with --fresh."
        )
    write_json(claim, {"fingerprint": mark, "model": model, "config": asdict(config)})


def _publish(adapter: Path, output: Path) -> None:
    """Make the output folder itself the adapter, so that chat, serve, merge and evaluate take it as it is."""
    files = [file for file in adapter.iterdir() if file.name != CONFIG]
    # Last the file that makes a folder an adapter.
    for file in [*files, adapter / CONFIG]:
        partial = output / f"{file.name}.partial"
        shutil.copy(file, partial)
        partial.replace(output / file.name)
    assert (output / WEIGHTS).is_file()


def _afterwards(config: TeachConfig, model: str) -> None:
    output = Path(config.output)
    if config.merge and not (output / "merged" / "config.json").is_file():
        from mora_peft.recipes.merge import MergeConfig, merge

        merge(MergeConfig(adapter=str(output), output=str(output / "merged"), base=model))
    if config.serve:
        from mora_peft.recipes.serving.launch import ServeConfig, serve

        serve(ServeConfig(model=model, adapters=str(output.resolve().parent)))


def _remembered(file: Path, make) -> Any:
    """The JSON in `file`, or what `make` gives, which is kept there for a run that is interrupted later."""
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    found = make()
    write_json(file, found)
    return found


def _spread(items: list, count: int) -> list:
    """`count` of `items`, from all over them."""
    return items if count >= len(items) else [items[number * len(items) // count] for number in range(count)]


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(file)


def _say_recall(who: str, sets: dict[str, list], scores: dict[str, list]) -> None:
    told = ", ".join(
        f"{name} {means(scores[name])['exact']:.0%} of {len(rows)}" for name, rows in sets.items() if rows
    )
    print(f"{who}: exact answers to questions: {told}", flush=True)


def _say_plan(config: TeachConfig, taught: dict[str, Any], rows: int) -> None:
    passes = taught["steps"] * config.batch_size / rows
    kinds = ", ".join(f"{count} {kind}" for kind, count in taught["rows"].items())
    print(f"Learning {rows} rows ({kinds}) in {taught['steps']} steps, {passes:.1f} passes.", flush=True)
    if config.minutes and passes < 2:
        print(f"{config.minutes:g} minutes are short for so many: give more, or ask for fewer --facts.", flush=True)
