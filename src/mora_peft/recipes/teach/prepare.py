"""From a folder to all that a teaching needs: facts, held-out questions about them, and the rows to learn."""

import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
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
from .questions import ask, askable, can_be_asked, own_questions, teachable
from .reading import read_folder
from .rows import as_prompt, passages, passages_a_pass, recall_rows, scheduled
from .secrets import secrets
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
    found: list[Fact]
    control: list[Fact]
    facts: list[Fact] = field(default_factory=list)  # those that are taught; of the others only the text
    asked: list[Fact] = field(default_factory=list)
    progress: list[Fact] = field(default_factory=list)


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
    every = teachable([fact for document in documents for fact in facts_of(document)])
    if not every:
        print("No facts were found that could be asked for: the documents are learned as text alone.", flush=True)
    control = askable([fact for document in _control_documents(config, documents) for fact in facts_of(document)])
    found = secrets(documents)
    print(f"Read {len(documents)} documents:", *summary.lines(), sep="\n", flush=True)
    for path, counts in found.items():
        told = ", ".join(f"{count} × {name}" for name, count in counts.items())
        print(f"Warning: {path} holds what look like secrets ({told}); whoever may ask the model may get them.")
    made = Material(documents, summary, found, every, spread(control, min(_CONTROL, config.asked)))
    return teaching(made, config.facts or len(every), config)


def teaching(made: Material, count: int, config: TeachConfig) -> Material:
    """`made` with `count` facts to teach, from all over the documents, and those of them that are asked."""
    facts = _chosen(made.found, count, config.asked + _PROGRESS)
    order = [fact for fact in facts if can_be_asked(fact)]  # the others are taught alone
    random.Random(config.seed).shuffle(order)
    # Few questions tell little of progress, and must not be many of what there is.
    apart = min(_PROGRESS, max(len(order) // 5, min(8, len(order) // 2))) if len(order) > 5 else 0
    return replace(
        made,
        facts=facts,
        asked=order[apart : apart + config.asked],
        progress=order[:apart] or order[:_PROGRESS],
    )


def _chosen(found: list[Fact], count: int, asked: int) -> list[Fact]:
    """`count` of the facts, from all over; where too few of them can be asked for a proof, first of those that can."""
    facts = spread(found, count)
    if sum(map(can_be_asked, facts)) >= asked:
        return facts
    able = [fact for fact in found if can_be_asked(fact)]
    taken = set(spread(able, min(count, asked)))
    taken |= set(spread([fact for fact in found if fact not in taken], count - len(taken)))
    return [fact for fact in found if fact in taken]


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
        known = json.loads(file.read_text(encoding="utf-8"))
        sets["earlier"] = [row for name in ("taught", "own", "earlier") for row in known.get(name, [])]
    write_json(Path(config.output) / "rows" / "questions.json", sets)
    return sets


def write_general(config: TeachConfig, base: "Module", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the rows of general text: those on which the base is kept, and those that measure forgetting."""
    kept, measured_by = general_rows(config.general, base, tokenizer, config.passage_tokens, config.seed)
    folder = Path(config.output) / "rows"
    write_lines(folder / "general.jsonl", measured_by)
    write_lines(folder / "kept.jsonl", kept)


def learnable(
    config: TeachConfig, made: Material, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows about the facts that are taught, as rules word them, and all text of the documents as passages."""
    recall, texts = [], []
    for document in made.documents:
        recall += recall_rows(document, [fact for fact in made.facts if fact.document == document.path], tokenizer)
        texts += passages(document, tokenizer, config.passage_tokens)
    return recall, texts


def write_rows(
    config: TeachConfig,
    made: Material,
    sets: dict[str, list[dict[str, Any]]],
    tokenizer: "PreTrainedTokenizerBase",
    earlier: "Adapter | None",
) -> dict[str, Any]:
    """Write the rows to learn, and to measure progress on; return their counts, in all and a pass.

    A wording that some question of the proof has, such as one of the documents' own, is not taught.
    """
    recall, texts = learnable(config, made, tokenizer)
    recall += [
        as_prompt(tokenizer, row) | {"kind": "written", "document": fact.document}
        for fact, rows in _written(config, made).items()
        for row in rows
    ]
    progress = ask(made.progress, made.facts, tokenizer, config.seed)
    held_out = {key(row["prompt"]) for rows in (*sets.values(), progress) for row in rows}
    recall = [row for row in recall if key(row["prompt"]) not in held_out]
    if earlier and (file := earlier.folder / "rows" / "taught.jsonl").is_file():
        before = read_rows(str(file), also=("kind",))
        recall += [row | {"kind": "earlier"} for row in spread(before, round(config.earlier_share * len(recall)))]
    rows = recall + texts
    folder = Path(config.output) / "rows"
    write_lines(folder / "taught.jsonl", rows)
    write_lines(folder / "schedule.jsonl", scheduled(recall, texts, config))
    progress = progress or rows[:_PROGRESS]
    write_lines(folder / "progress.jsonl", [{name: row[name] for name in ("prompt", "completion")} for row in progress])
    counts = Counter(row["kind"] for row in rows)
    return {"rows": dict(counts), "a_pass": len(recall) + passages_a_pass(len(recall), len(texts), config)}


def _written(config: TeachConfig, made: Material) -> dict[Fact, list[Row]]:
    if config.writer is None:
        return {}
    from .writer import Writer

    print(f"The documents' sentences go to {config.writer}, which writes further wordings.", flush=True)
    held_out = {key(questioned(fact)) for fact in made.facts}
    return Writer(config.writer, config.writer_model).rows(made.facts, held_out)  # no fact holds a secret


def spread(items: list, count: int) -> list:
    """`count` of `items`, from all over them."""
    return items if count >= len(items) else [items[number * len(items) // count] for number in range(count)]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(file)
