"""What `mora teach` teaches: the handbook of examples/, MoRA beside LoRA, or real text written out as files.

    python benchmarks/teach.py handbook --own --passes 2 --seeds 0 1 2
    python benchmarks/teach.py beige-book --passes 2
    python benchmarks/teach.py plos --facts 60 --passes 2

The last two need the data in ../shared/data. Each seed's proof is kept in benchmarks/results/teach/, without the curves
of every step.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from mora_peft.recipes.files import write_json
from mora_peft.recipes.teach.settings import TeachConfig
from mora_peft.recipes.teach.teach import teach

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results" / "teach"


class Source(NamedTuple):
    """Rows of a data set, of which several make a document: those whose ids begin alike."""

    data: str
    title: str
    prefix: str  # of an id, left out of the title
    characters: int | None  # of an id that name the document; None for all up to the row's number
    documents: int  # that are taught


SOURCES = {
    "beige-book": Source("finance/beige_book", "Beige Book", "", len("2010-12"), 36),
    "plos": Source("biomedical/plos_text", "PLOS article", "10.1371/journal.", None, 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["handbook", *SOURCES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--model", default=str(ROOT / "models" / "SmolLM2-135M-Instruct"))
    parser.add_argument("--facts", type=int, default=120)
    parser.add_argument("--asked", type=int, default=60)
    parser.add_argument("--passes", type=float, default=TeachConfig.passes)
    parser.add_argument("--own", action="store_true", help="also ask examples/handbook-questions.jsonl")
    options = parser.parse_args()
    folder, own, control, versus = ROOT / "examples" / "handbook", None, None, "lora"
    if options.what == "handbook" and options.own:
        own = str(ROOT / "examples" / "handbook-questions.jsonl")
    if options.what in SOURCES:
        versus = None
        folder = ROOT / "runs" / "teach" / f"{options.what}-files"
        source = SOURCES[options.what]
        control = str(write_files(source, "test", folder.with_name(f"{options.what}-control")))
        write_files(source, "train", folder, source.documents)
    for seed in options.seeds:
        output = ROOT / "runs" / "teach" / f"{options.what}-seed{seed}"
        teach(
            TeachConfig(
                folder=str(folder), model=options.model, output=str(output), questions=own, control=control,
                versus=versus, facts=options.facts, asked=options.asked, passes=options.passes, seed=seed,
            )
        )  # fmt: skip
        print(write_json(RESULTS / f"{output.name}.json", shown(json.loads((output / "proof.json").read_text()))))


def shown(proof: dict) -> dict:
    """A proof as it is kept: paths as from the repository's root, and every tenth loss."""
    for name in ("folder", "model", "output", "questions", "control"):
        proof["config"][name] = from_root(proof["config"][name])
    proof["model"] = Path(proof["model"]).name
    for method in proof["methods"]:
        method["history"] = method["history"][::10]
        method["forgetting"]["data"] = from_root(method["forgetting"]["data"])
    return proof


def from_root(path: str | None) -> str | None:
    return str(Path(path).relative_to(ROOT)) if path and Path(path).is_absolute() else path


def write_files(source: Source, split: str, folder: Path, count: int | None = None) -> Path:
    """The first documents of a data set as files, in turn as PDF, Word, HTML and text; return the folder."""
    documents = defaultdict(dict)
    for line in (DATA / f"{source.data}.{split}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name, number = row["id"].split("#")
        documents[name[: source.characters]][name, int(number)] = row["text"]
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, rows) in enumerate(list(documents.items())[:count]):
        paragraphs = [paragraph for _, text in sorted(rows.items()) for paragraph in text.split("\n")]
        writer = (_pdf, _docx, _html, _text)[number % 4]
        writer(folder / f"{number:02d}", f"{source.title} {name.removeprefix(source.prefix)}", paragraphs)
    return folder


def _pdf(file: Path, title: str, paragraphs: list[str]) -> None:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    styles = getSampleStyleSheet()
    body = [Paragraph(_escaped(text), styles["BodyText"]) for text in paragraphs if text.strip()]
    SimpleDocTemplate(str(file.with_suffix(".pdf"))).build([Paragraph(_escaped(title), styles["Title"]), *body])


def _docx(file: Path, title: str, paragraphs: list[str]) -> None:
    import docx

    document = docx.Document()
    document.add_heading(title, 1)
    for text in paragraphs:
        document.add_paragraph(text)
    document.save(str(file.with_suffix(".docx")))


def _html(file: Path, title: str, paragraphs: list[str]) -> None:
    body = "".join(f"<p>{_escaped(text)}</p>" for text in paragraphs)
    file.with_suffix(".html").write_text(f"<title>{title}</title><h1>{title}</h1>{body}", encoding="utf-8")


def _text(file: Path, title: str, paragraphs: list[str]) -> None:
    file.with_suffix(".txt").write_text("\n\n".join([title, *paragraphs]), encoding="utf-8")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    main()
