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


def write_full_docx(file: Path) -> None:
    """A Word file with text in all the places that are no plain paragraphs of its body."""
    import docx
    from docx.opc.constants import RELATIONSHIP_TYPE
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    spaces = nsdecls("w") + ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'

    def run(text: str) -> str:
        return f"<w:r><w:t xml:space='preserve'>{text}</w:t></w:r>"

    box = f"<w:pict><w:txbxContent><w:p>{run('In the box.')}</w:p></w:txbxContent></w:pict>"
    document = docx.Document()
    document.add_paragraph("It is 7 euros.")
    for body in (
        f"<w:sdt {spaces}><w:sdtContent><w:p>{run('In a control.')}</w:p></w:sdtContent></w:sdt>",
        f"<w:p {spaces}>{run('Inserted ')}<w:ins>{run('in a line.')}</w:ins>"
        "<w:del><w:r><w:delText>No</w:delText></w:r></w:del></w:p>",
        f"<w:p {spaces}>{run('With a box.')}<w:r><mc:AlternateContent><mc:Choice Requires='wps'>{box}</mc:Choice>"
        f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r></w:p>",
    ):
        document.element.body.insert(-1, parse_xml(body))
    table = document.add_table(2, 2)
    inner = table.cell(1, 1).add_table(2, 2)
    frame = document.add_table(1, 1)
    frame.cell(0, 0).text = "Around."
    for cells, texts in ((table, ["Cup", "Price", "Tin", "7 euros"]), (inner, ["Inner", "Cell", "Pot", "8 euros"])):
        for number, text in enumerate(texts):
            cells.cell(*divmod(number, 2)).paragraphs[0].text = text
    document.sections[0].header.paragraphs[0].text = "The head"
    document.sections[0].footer.paragraphs[0].text = "The foot"
    notes = f"<w:footnotes {spaces}><w:footnote w:id='2'><w:p>{run('A footnote.')}</w:p></w:footnote></w:footnotes>"
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
    part = Part(PackURI("/word/footnotes.xml"), kind, notes.encode(), document.part.package)
    document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)
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
