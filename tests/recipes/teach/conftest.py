"""A folder of documents in every format that is read, made of one small invented company."""

from pathlib import Path

import pytest

TEXT = {
    "hours": (
        "Opening hours",
        [
            "The bakery Corvell opens at 06:40.",
            "The bakery was founded on 4 May 1931 by Ilse Tarrow.",
        ],
    ),
    "bread": ("Bread", ["A Tarrow loaf costs 7.20 crowns.", "A Tarrow loaf weighs 820 grams."]),
    "people": ("People", ["The ovens are managed by Jorin Velk.", "The shop is led by Mette Aldous."]),
    "leave": ("Leave", ["Employees receive 31 days of leave.", "Leave is approved by Carsten Holm."]),
}  # fmt: skip


@pytest.fixture(scope="session")
def documents(tmp_path_factory) -> Path:
    """One file of each kind: Markdown, HTML, Word, PDF, text, CSV, TSV, Excel and JSONL."""
    folder = tmp_path_factory.mktemp("documents")
    title, lines = TEXT["hours"]
    (folder / "hours.md").write_text(f"# {title}\n\n" + " ".join(lines) + "\n", encoding="utf-8")
    title, lines = TEXT["bread"]
    (folder / "bread.html").write_text(
        f"<html><head><title>{title}</title></head><body><nav>Home | Shop</nav><h1>{title}</h1>"
        + "".join(f"<p>{line}</p>" for line in lines) + "<footer>Imprint</footer></body></html>",
        encoding="utf-8",
    )  # fmt: skip
    write_docx(folder / "people.docx", *TEXT["people"])
    write_pdf(folder / "leave.pdf", *TEXT["leave"])
    (folder / "notes.txt").write_text(
        "Notes\n\nThe mill stands in Lindmoor. The mill was bought in 1977.", encoding="utf-16"
    )
    (folder / "prices.csv").write_text("Cake;Price\nHoney cake;11\nPlum cake;13\n", encoding="utf-8")
    (folder / "rooms.tsv").write_text("Room\tKey\nAttic\tK-31\nCellar\tK-77\n", encoding="utf-8")
    write_xlsx(folder / "vans.xlsx", [("Van", "Driver"), ("Robin", "Olaf Stenner"), ("Wren", "Paula Quist")])
    (folder / "faq.jsonl").write_text(
        '{"question": "Who cleans the ovens?", "answer": "Hedda Prill cleans the ovens."}\n'
    )
    return folder


def write_docx(file: Path, title: str, lines: list[str]) -> None:
    import docx

    document = docx.Document()
    document.add_heading(title, 1)
    for line in lines:
        document.add_paragraph(line)
    document.save(str(file))


def write_pdf(file: Path, title: str, lines: list[str], pages: int = 1, head: str = "") -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(file))
    for number in range(pages):
        place = 800
        for line in ([head] if head else []) + [title, "", *lines, "", f"Page {number + 1} of {pages}"]:
            canvas.drawString(72, place, line)
            place -= 16
        canvas.showPage()
    canvas.save()


def write_xlsx(file: Path, rows: list[tuple]) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(file)
