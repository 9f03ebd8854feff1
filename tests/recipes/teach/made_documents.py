"""Documents of one small invented company, and writers of the formats that are not text."""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

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


def broken(file: Path, part: str) -> None:
    """Spoil one part of a zipped document, so that the archive is whole and its XML is not."""
    with ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name, data in (parts | {part: b"<w:document <<broken"}).items():
            archive.writestr(name, data)
