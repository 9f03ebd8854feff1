"""Reading: every format gives the same facts, and nothing that is left out goes without a reason."""

import os
from pathlib import Path

import pytest
from made_documents import TEXT, broken, write_docx, write_pdf, write_xlsx
from pypdf.errors import DependencyError

from mora_peft.errors import UserError
from mora_peft.recipes.teach import reading
from mora_peft.recipes.teach.cleaning import cleaned
from mora_peft.recipes.teach.documents import Summary
from mora_peft.recipes.teach.facts import facts_of
from mora_peft.recipes.teach.reading import READERS, read_folder


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
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "spaces.txt").write_text("\u00a0\n\u3000", encoding="utf-8")
    (tmp_path / "heads.html").write_text("<h1>Rates</h1><h2>Of rooms</h2>")
    (tmp_path / "head.csv").write_text("Cake,Price\n")
    write_docx(tmp_path / "broken.docx", "Rates", ["The rate is 7 euros."])
    broken(tmp_path / "broken.docx", "word/document.xml")
    for name, part in (("book.xlsx", "xl/workbook.xml"), ("sheet.xlsx", "xl/worksheets/sheet1.xml")):
        write_xlsx(tmp_path / name, [("Cake", "Price"), ("Plum cake", 13)])
        broken(tmp_path / name, part)
    write_xlsx(tmp_path / "formulas.xlsx", [("Cake", "Price"), ("Plum cake", "=6+7")])
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
        "empty.md": "empty", "mark.txt": "empty", "spaces.txt": "empty", "heads.html": "headings alone",
        "head.csv": "no row below", "formulas.xlsx": "formulas without a saved value: 1 (B2)",
        "broken.docx": "damaged", "book.xlsx": "damaged", "sheet.xlsx": "damaged",
        "noise.pdf": "damaged", "noise.docx": "damaged", "noise.xlsx": "damaged", "picture.png": "not read",
        "large.txt": "--largest_megabytes", "scan.pdf": "OCR", "locked.pdf": "password",
    }  # fmt: skip
    assert {path for path in words if words[path] in dropped[path]} == set(dropped) == set(words)


def test_what_is_no_file_is_listed_and_never_opened(tmp_path):
    folder = tmp_path / "documents"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config.txt").write_text("The mill is hidden.")
    (folder / ".notes.txt").write_text("The mill is hidden.")
    (folder / "~$good.docx").write_text("x")
    (folder / "good.txt").write_text("The mill stands in Lindmoor.")
    (folder / "linked.txt").symlink_to(folder / "good.txt")
    (folder / "gone.txt").symlink_to(folder / "none.txt")
    (folder / "circle").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    found, summary = read(folder)
    assert list(found) == ["good.txt", "linked.txt"]
    words = {
        ".git": "hidden", ".notes.txt": "hidden", "~$good.docx": "Office", "gone.txt": "link to nothing",
        "circle": "link to a folder", "pipe.txt": "pipe",
    }  # fmt: skip
    dropped = reasons(summary, "dropped")
    assert {path for path in words if words[path] in dropped[path]} == set(dropped) == set(words)


@pytest.mark.parametrize(
    "error, told",
    [
        (PermissionError(13, "Permission denied"), "it cannot be opened (Permission denied)"),
        (RecursionError("too deep"), "it is damaged, or no .txt file (too deep); save it anew"),
        (DependencyError("cryptography>=3.1 is required"), "a package is missing (cryptography>=3.1 is required)"),
    ],
)
def test_no_error_of_a_reader_ends_the_run(error, told, tmp_path, monkeypatch):
    name = "bad.pdf" if isinstance(error, DependencyError) else "bad.txt"
    write_pdf(tmp_path / "bad.pdf", *TEXT["leave"])
    for file in ("bad.txt", "good.md"):
        (tmp_path / file).write_text("The mill stands in Lindmoor.")

    def raising(*_):
        raise error

    monkeypatch.setattr("mora_peft.recipes.teach.reading.text.paragraphs", raising)
    if name == "bad.pdf":
        monkeypatch.setattr("mora_peft.recipes.teach.reading.pdf.PdfReader", raising)
    found, summary = read(tmp_path)
    assert "good.md" in found and told in reasons(summary, "dropped")[name]


@pytest.mark.parametrize(
    "name, kind", [("leave.txt", ".pdf"), ("people.csv", ".docx"), ("vans", ".xlsx"), ("bread.aspx", ".html")]
)
def test_a_file_is_read_as_what_it_begins_as(name, kind, documents, tmp_path):
    source = next(file for file in documents.iterdir() if file.name == Path(name).stem + kind)
    (tmp_path / name).write_bytes(source.read_bytes())
    found, summary = read(tmp_path)
    assert found[name].blocks[1:] == read(documents)[0][source.name].blocks[1:]
    assert (name, f"read as {kind}, which its content is") in [
        (entry["path"], entry["reason"]) for entry in summary.of("changed")
    ]


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("text", ["The depot was opened in 1999.", "Склад открыт в 07:20.", "水壶的 保修期为27个月。"])
def test_utf_16_without_a_mark_is_read(text, order, tmp_path):
    (tmp_path / "old.txt").write_bytes(text.encode(f"utf-16-{order}"))
    found, summary = read(tmp_path)
    assert found["old.txt"].text() == text
    assert f"utf-16-{order}" in reasons(summary, "changed")["old.txt"]


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


def test_of_duplicates_only_what_the_first_lacks_is_kept(tmp_path):
    letters = enumerate("abcdefghijklmnopqrst")
    text = "\n\n".join(f"Rule {number}: The {letter} is kept in room {number}." for number, letter in letters)
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.md").write_text(text)
    (tmp_path / "c.txt").write_text(text.replace("room 19", "room 99"))
    (tmp_path / "d.txt").write_text("The mill stands in Lindmoor.")
    (tmp_path / "e.txt").write_text("\n\n".join(sorted(text.split("\n\n"), key=lambda rule: "Rule 0" in rule)))
    prices = "Cake,Price\n" + "".join(f"Cake {number},{number + 7}\n" for number in range(30))
    (tmp_path / "f.csv").write_text(prices)
    (tmp_path / "g.csv").write_text(prices.replace("Cake 5,12", "Cake 5,88"))
    found, summary = read(tmp_path)
    kept = cleaned(list(found.values()), summary)
    assert [document.path for document in kept] == ["a.txt", "c.txt", "d.txt", "f.csv", "g.csv"]
    said = {document.path: document.text() for document in kept}
    assert said["c.txt"] == "Rule 19: The t is kept in room 99."
    assert said["g.csv"].endswith("Cake | Price\nCake 5 | 88")
    assert reasons(summary, "dropped") == {"b.md": "the same as a.txt", "e.txt": "nearly the same as a.txt"}
    assert "nearly the same as a.txt" in reasons(summary, "changed")["c.txt"]


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
