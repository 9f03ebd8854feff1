"""From a folder to all that a teaching needs: facts, held-out questions about them, and the rows to learn."""

import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mora_peft.recipes.data import read_rows
from mora_peft.recipes.files import write_json

from .cleaning import cleaned
from .documents import Document, Summary
from .facts import Fact, facts_of
from .general import general_rows
from .language import KNOWN
from .questions import ask, askable, own_questions
from .reading import read_folder
from .rows import as_prompt, passages, passages_a_pass, recall_rows, scheduled
from .secrets import counted, secrets
from .settings import TeachConfig
from .wordings import Row, key, questioned

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

    from mora_peft.recipes.adapters import Adapter

_PROGRESS = 32  # questions that recall so far is measured on; they are no part of the proof
_CONTROL = 40


@dataclass
class Material:
    """What was made of the documents."""

    documents: list[Document]
    summary: Summary
    secrets: dict[str, dict[str, int]]
    facts: list[Fact]  # those that are taught
    unasked: int  # found, but not taught as rows of their own
    asked: list[Fact]
    progress: list[Fact]
    control: list[Fact]


def prepared(config: TeachConfig) -> Material:
    """Read the folder, and find its facts; what was read and what was not is printed."""
    summary = Summary()
    documents = cleaned(read_folder(Path(config.folder), config.largest_megabytes, summary), summary)
    for document in documents:
        if document.language not in KNOWN:
            summary.note(
                document.path,
                "changed",
                "its language is not known here: of its facts, numbers and dates alone are asked",
            )
    every = askable([fact for document in documents for fact in facts_of(document)])
    facts = _spread(every, config.facts or len(every))
    if not facts:
        print("No facts were found that could be asked for: the documents are learned as text alone.", flush=True)
    order = facts[:]
    random.Random(config.seed).shuffle(order)
    # Few questions tell little of progress, and must not be many of what there is.
    count = min(_PROGRESS, max(len(order) // 5, min(8, len(order) // 2))) if len(order) > 5 else 0
    control = askable([fact for document in _control_documents(config, documents) for fact in facts_of(document)])
    found = secrets(documents)
    made = Material(
        documents, summary, found, facts, len(every) - len(facts), order[count : count + config.asked],
        order[:count] or order[: min(len(order), _PROGRESS)], _spread(control, min(_CONTROL, config.asked)),
    )  # fmt: skip
    print(f"Read {len(documents)} documents:", *summary.lines(), sep="\n", flush=True)
    for path, counts in found.items():
        told = ", ".join(f"{count} × {name}" for name, count in counts.items())
        print(f"Warning: {path} holds what look like secrets ({told}); whoever may ask the model may get them.")
    return made


def _control_documents(config: TeachConfig, documents: list[Document]) -> list[Document]:
    """The documents that are asked about and never taught: the user's, or the package's page in the same language."""
    if config.control:
        return read_folder(Path(config.control), config.largest_megabytes, Summary())
    language = Counter(document.language for document in documents).most_common(1)[0][0]
    source = Path(__file__).parent / "control" / f"{language if language in KNOWN else 'en'}.md"
    with TemporaryDirectory() as folder:
        shutil.copy(source, folder)
        return read_folder(Path(folder), config.largest_megabytes, Summary())


def question_sets(
    config: TeachConfig, made: Material, tokenizer: "PreTrainedTokenizerBase", earlier: "Adapter | None"
) -> dict[str, list[dict[str, Any]]]:
    """The questions of the proof: about what is taught, the user's own, of the control, and of earlier teaching.

    The user's whose answer no taught fact has are `further`: they ask for what was read as text alone.
    """
    sets = {"taught": ask(made.asked, made.facts, tokenizer, config.seed)}
    if config.questions:
        own = own_questions(config.questions, made.facts, tokenizer, config.seed)
        answers = {key(fact.answer) for fact in made.facts}
        sets["own"] = [row for row in own if key(row["completion"]) in answers]
        sets["further"] = [row for row in own if key(row["completion"]) not in answers]
    sets["control"] = ask(made.control, made.facts, tokenizer, config.seed)
    if earlier and (file := earlier.folder / "rows" / "questions.json").is_file():
        sets["earlier"] = json.loads(file.read_text(encoding="utf-8"))["taught"]
    write_json(Path(config.output) / "rows" / "questions.json", sets)
    return sets


def write_rows(
    config: TeachConfig,
    made: Material,
    sets: dict[str, list[dict[str, Any]]],
    base: "Module",
    tokenizer: "PreTrainedTokenizerBase",
    earlier: "Adapter | None",
) -> dict[str, Any]:
    """Write the rows to learn, to measure progress on, and to keep; return their counts, in all and a pass.

    A wording that some question of the proof has, such as one of the documents' own, is not taught.
    """
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
    progress = ask(made.progress, made.facts, tokenizer, config.seed)
    held_out = {key(row["prompt"]) for rows in (*sets.values(), progress) for row in rows}
    recall = [row for row in recall if key(row["prompt"]) not in held_out]
    if earlier and (file := earlier.folder / "rows" / "taught.jsonl").is_file():
        before = read_rows(str(file), also=("kind",))
        recall += [row | {"kind": "earlier"} for row in _spread(before, round(config.earlier_share * len(recall)))]
    kept, measured_by = general_rows(config.general, base, tokenizer, config.passage_tokens, config.seed)
    rows = recall + texts
    folder = Path(config.output) / "rows"
    write_lines(folder / "taught.jsonl", rows)
    write_lines(folder / "schedule.jsonl", scheduled(recall, texts, config))
    progress = progress or rows[:_PROGRESS]
    write_lines(folder / "progress.jsonl", [{name: row[name] for name in ("prompt", "completion")} for row in progress])
    write_lines(folder / "kept.jsonl", kept)
    write_lines(folder / "general.jsonl", measured_by)
    counts = Counter(row["kind"] for row in rows)
    return {"rows": dict(counts), "a_pass": len(recall) + passages_a_pass(len(recall), len(texts), config)}


def _written(config: TeachConfig, made: Material) -> dict[Fact, list[Row]]:
    if config.writer is None:
        return {}
    from .writer import Writer

    print(f"The documents' sentences go to {config.writer}, which writes further wordings.", flush=True)
    sent = [fact for fact in made.facts if not counted(fact.sentence)]  # a secret stays here
    return Writer(config.writer, config.writer_model).rows(sent, {key(questioned(fact)) for fact in made.facts})


def _spread(items: list, count: int) -> list:
    """`count` of `items`, from all over them."""
    return items if count >= len(items) else [items[number * len(items) // count] for number in range(count)]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(file)
