"""Reading: every format gives the same facts, and nothing that is left out goes without a reason."""

import json
from pathlib import Path

import pytest
from made_documents import TEXT, write_docx, write_pdf

from mora_peft.errors import UserError
from mora_peft.recipes.teach import reading
from mora_peft.recipes.teach.cleaning import cleaned
from mora_peft.recipes.teach.documents import Summary
from mora_peft.recipes.teach.facts import facts_of
from mora_peft.recipes.teach.reading import READERS, read_folder
from mora_peft.recipes.teach.secrets import counted, secrets


def read(folder: Path, largest: float = 50):
    summary = Summary()
    return {document.path: document for document in read_folder(folder, largest, summary)}, summary


def reasons(summary: Summary, what: str) -> dict[str, str]:
    return {entry["path"]: entry["reason"] for entry in summary.of(what)}


def test_every_format_gives_its_text(documents):
    found, summary = read(documents)
    assert {Path(path).suffix for path in found} == set(READERS) - {".markdown", ".htm"}
    assert not summary.of("dropped")
    for name, suffix in (("hours", "md"), ("bread", "html"), ("people", "docx"), ("leave", "pdf")):
        document, (title, lines) = found[f"{name}.{suffix}"], TEXT[name]
        assert document.title == title
        assert all(line in " ".join(document.text().split()) for line in lines), suffix
    assert "mill stands in Lindmoor" in found["notes.txt"].text()
    for path in ("prices.csv", "rooms.tsv", "vans.xlsx"):
        [table] = [block for block in found[path].blocks if block.kind == "table"]
        assert len(table.rows) == 3 and len(table.rows[0]) == 2
    [question] = found["faq.jsonl"].blocks
    assert (question.text, question.rows) == ("Who cleans the ovens?", (("Hedda Prill cleans the ovens.",),))


def test_navigation_and_running_heads_are_left_out_and_noted(documents, tmp_path):
    found, summary = read(documents)
    assert "Imprint" not in found["bread.html"].text() and "Home" not in found["bread.html"].text()
    assert "footer, nav" in reasons(summary, "changed")["bread.html"]
    lines = [f"The {word} of the report is here." for word in ("first", "second", "third", "fourth", "fifth")]
    write_pdf(tmp_path / "long.pdf", "Report", lines, pages=4, head="Secret Bakery Report")
    found, summary = read(tmp_path)
    assert "The third of the report" in found["long.pdf"].text()
    assert "Page" not in found["long.pdf"].text() and "Secret Bakery" not in found["long.pdf"].text()
    assert "left out of every page" in reasons(summary, "changed")["long.pdf"]


def test_what_cannot_be_read_is_listed_and_the_rest_is_read(tmp_path):
    from pypdf import PdfWriter

    (tmp_path / "good.txt").write_text("The mill stands in Lindmoor.")
    (tmp_path / "empty.md").write_text("  \n")
    (tmp_path / "noise.pdf").write_bytes(b"%PDF-1.4 nothing of the kind")
    (tmp_path / "noise.docx").write_bytes(b"PK nothing of the kind")
    (tmp_path / "noise.xlsx").write_bytes(b"nothing of the kind")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "large.txt").write_text("word " * 30_000)
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(tmp_path / "scan.pdf")
    writer.encrypt("open sesame")
    writer.write(tmp_path / "locked.pdf")
    found, summary = read(tmp_path, largest=0.1)
    assert list(found) == ["good.txt"]
    dropped = reasons(summary, "dropped")
    words = {
        "empty.md": "empty", "noise.pdf": "damaged", "noise.docx": "damaged", "noise.xlsx": "damaged",
        "picture.png": "not read", "large.txt": "--largest_megabytes", "scan.pdf": "OCR", "locked.pdf": "password",
    }  # fmt: skip
    assert {path for path in words if words[path] in dropped[path]} == set(dropped) == set(words)


@pytest.mark.parametrize("text, encoding", [("Größe und Straße: das Maß beträgt 12 Meter in München.", "cp1252"),
                                            ("Гарантия на чайник составляет двадцать семь месяцев.", "cp1251"),
                                            ("水壶的保修期为二十七个月，请保存好购买凭证。", "gb18030")])  # fmt: skip
def test_other_encodings_are_read_and_noted(text, encoding, tmp_path):
    (tmp_path / "old.txt").write_bytes((text + "\n").encode(encoding) * 8)
    found, summary = read(tmp_path)
    assert text in found["old.txt"].text()
    assert "not UTF-8" in reasons(summary, "changed")["old.txt"]


def test_a_missing_package_is_named(documents, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}", name="pypdf")

    monkeypatch.setitem(READERS, ".pdf", ("pdf", "pypdf"))
    original = reading.import_module
    monkeypatch.setattr(reading, "import_module", lambda name: (missing if name.endswith(".pdf") else original)(name))
    found, summary = read(documents)
    assert "leave.pdf" not in found and len(found) == 8
    assert "pip install 'mora-peft[teach]'" in reasons(summary, "dropped")["leave.pdf"]


def test_duplicates_are_dropped_with_the_name_of_the_first(tmp_path):
    letters = enumerate("abcdefghijklmnopqrst")
    text = "\n\n".join(f"Rule {number}: The {letter} is kept in room {number}." for number, letter in letters)
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.md").write_text(text)
    (tmp_path / "c.txt").write_text(text.replace("room 19", "room 99"))
    (tmp_path / "d.txt").write_text("The mill stands in Lindmoor.")
    found, summary = read(tmp_path)
    kept = cleaned(list(found.values()), summary)
    assert [document.path for document in kept] == ["a.txt", "d.txt"]
    assert reasons(summary, "dropped") == {"b.md": "the same as a.txt", "c.txt": "nearly the same as a.txt"}


def test_paragraphs_of_most_files_are_left_out(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.md").write_text(f"# Page {number}\n\nRoom {number} is blue.\n\nAll rights are reserved.")
    found, summary = read(tmp_path)
    kept = cleaned(list(found.values()), summary)
    assert not any("reserved" in document.text() for document in kept) and len(summary.of("changed")) == 6


def test_bad_folders_get_one_sentence(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="is empty"):
        read(tmp_path)
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(UserError, match=r"no document that can be read.*\.xyz"):
        read(tmp_path)


def test_secrets_are_counted_and_not_kept(tmp_path):
    (tmp_path / "a.md").write_text(
        "The password is hunter2secret.\n\nCard 4111 1111 1111 1111, or 4111 1111 1111 1112."
    )
    found, _ = read(tmp_path)
    counts = secrets(list(found.values()))
    assert counts == {"a.md": {"password": 1, "card number": 1}}
    assert "hunter2" not in json.dumps(counts)
    assert counted("DE89 3704 0044 0532 0130 00 and DE89 3704 0044 0532 0130 01") == {"bank account (IBAN)": 1}


@pytest.mark.parametrize("page", ["02-leadership", "06-warranty", "23-history"])
def test_a_page_of_the_handbook_says_the_same_in_every_format(page, root, tmp_path):
    source = (root / "examples" / "handbook" / f"{page}.md").read_text(encoding="utf-8")
    title, *parts = [part.strip() for part in source.removeprefix("# ").split("\n\n")]
    lines = [part.removeprefix("## ") for part in parts]
    (tmp_path / "a.md").write_text(source, encoding="utf-8")
    (tmp_path / "a.html").write_text(
        f"<h1>{title}</h1>" + "".join(f"<p>{line}</p>" for line in lines), encoding="utf-8"
    )
    (tmp_path / "a.txt").write_text("\n\n".join([title, *lines]), encoding="utf-8")
    write_docx(tmp_path / "a.docx", title, lines)
    write_pdf(tmp_path / "a.pdf", title, lines)
    found, _ = read(tmp_path)
    said = {path: {(fact.sentence, fact.answer) for fact in facts_of(document)} for path, document in found.items()}
    assert len(said) == 5 and len(said["a.md"]) > 8
    assert all(facts == said["a.md"] for facts in said.values())
