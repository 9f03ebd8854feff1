"""A folder of documents in every format that is read."""

from pathlib import Path

import pytest
from made_documents import TEXT, write_docx, write_pdf, write_xlsx


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
