"""Formats: what a file of each says, block by block, however it is marked up; and what is left out of it, as noted."""

import json

import pytest
from made_documents import write_docx, write_full_docx, write_pdf, write_xlsx

from mora_peft.recipes.teach.documents import Summary
from mora_peft.recipes.teach.reading import read_folder


def blocks(folder) -> tuple[list[tuple[str, ...]], str]:
    """The blocks of the only file of a folder as kind, text and cells, and all that was noted about it."""
    summary = Summary()
    [document] = read_folder(folder, 50, summary)
    found = [(block.kind, block.text, *block.rows) for block in document.blocks]
    return found, "; ".join(entry["reason"] for entry in summary.entries)


def text(*lines: str) -> list[tuple[str, ...]]:
    return [("text", line) for line in lines]


def asked(question: str, answer: str) -> tuple:
    return ("question", question, (answer,))


def said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


TITLE = ("heading", "Rates")
FEE = "The fee is 12 euros for Harwick members each year."
OVENS = asked("Who cleans the ovens?", "Hedda Prill cleans the ovens.")
REST = asked("When do they rest?", "On 4 May.")

PAGES = {
    "inline tags": ("<div>The fee is <b>12 euros</b> for <a href=x>Harwick members</a> each year.</div>", text(FEE)),
    "a lone span": ("<div><span>Loose 44 euros</span></div>", text("Loose 44 euros")),
    "loose strings": ("One<p>Two</p>Three <i>four</i><div></div>five", text("One", "Two", "Three four", "five")),
    "unusual tags": (
        "<address>Mill Lane 4</address><pre><code>code 7</code></pre><my-note>Open at 9.</my-note>",
        text("Mill Lane 4", "code 7", "Open at 9."),
    ),
    "no space is made up": (
        "<p>CO<sub>2</sub> costs <b>4</b>0 euros.<br>A ton.</p>",
        text("CO2 costs 40 euros. A ton."),
    ),
    "breaks": ("<div>One<br>line.<br> <br>Another.</div>", text("One line.", "Another.")),
    "comments": ("<div><!-- no text -->Some text.</div>", text("Some text.")),
    "a form around the page": (
        "<form id=aspnetForm><h1>Rates</h1><p>It is 14 euros.</p></form>",
        [TITLE, *text("It is 14 euros.")],
    ),
    "a form without paragraphs": (
        "<form><div>It is 14 euros a day.</div><input></form>",
        text("It is 14 euros a day."),
    ),
    "a header with the title": (
        "<article><header><h1>Rates</h1></header>It is so.</article>",
        [TITLE, *text("It is so.")],
    ),
    "deep nesting": ("<div>" * 3000 + "Deep." + "</div>" * 3000, text("Deep.")),
    "lists in lists": ("<ul><li>One<ul><li>Two</li></ul></li></ul>", text("One", "Two")),
    "a table": (
        "<h1>Rates</h1><table><tr><th>Cup<th>Price<tr><td><p>Tin</p><td><b>7</b> euros</table>",
        [TITLE, ("table", "Rates", ("Cup", "Price"), ("Tin", "7 euros"))],
    ),
    "a table that lays out": (
        "<table><tr><td>Menu<td><h1>Rates</h1><p>It is 7.</p></table>",
        [*text("Menu"), TITLE, *text("It is 7.")],
    ),
    "an empty table": ("<p>It is so.</p><table><tr><td></table>", text("It is so.")),
    "terms": (
        "<dl><dt>Who cleans the ovens?<dd>Hedda Prill cleans the ovens."
        "<dt>When do they rest?<dd>On 4 May.<dt>Fee<dd>7 euros</dl>",
        [OVENS, REST, *text("Fee: 7 euros")],
    ),
    "details": (
        "<details><summary>Who cleans the ovens?</summary>Hedda Prill <b>cleans</b> the ovens.</details>"
        "<details><summary>When do they rest?</summary><p>On 4 May.</p></details>"
        "<details><summary>Rates</summary><p>It is 7.</p></details>",
        [OVENS, REST, TITLE, *text("It is 7.")],
    ),
    "marked questions": (
        "<h1>Rates</h1><p><b>Q:</b> Who cleans the ovens?<br><b>A:</b> Hedda Prill cleans the ovens.</p>"
        "<h3>Q: When do they rest?</h3><p>A: On 4 May.</p><p>It is so.</p>",
        [TITLE, OVENS, REST, *text("It is so.")],
    ),
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("ending", ["html", "md"])
def test_a_page_says_all_that_a_browser_shows(name, ending, tmp_path):
    page, expected = PAGES[name]
    (tmp_path / f"a.{ending}").write_text(page, encoding="utf-8")
    assert blocks(tmp_path)[0] == expected


WHO, HEDDA, WHEN, MAY = OVENS[1], OVENS[2][0], REST[1], REST[2][0]
TEXTS = {
    "lines": f"Question: {WHO}\nAnswer: {HEDDA.replace(' the', chr(10) + 'the')}\nQuestion: {WHEN}\nAnswer: {MAY}",
    "lines apart": f"Q: {WHO}\n\nA: {HEDDA}\n\nQ: {WHEN}\n\nA: {MAY}",
    "numbers": f"Q1: {WHO}\nA1: {HEDDA}\n\nQ2: {WHEN}\nA2: {MAY}",
    "one line": f"Q: {WHO} A: {HEDDA}\nQ. {WHEN} A. {MAY}",
    "Russian": f"Вопрос: {WHO}\nОтвет: {HEDDA}\n\nВ: {WHEN}\nО: {MAY}",
    "Chinese": f"问：{WHO}\n答：{HEDDA}\n问题：{WHEN}\n回答：{MAY}",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("ending", ["txt", "md", "docx", "pdf"])
def test_marked_questions_have_their_own_answers_in_every_format(name, ending, tmp_path):
    source, file = TEXTS[name], tmp_path / f"a.{ending}"
    if ending == "docx":
        write_docx(file, "Rates", source.split("\n\n"))
    elif ending == "pdf":
        if not source.isascii():
            pytest.skip("the made PDF has a font of Latin letters only")
        write_pdf(file, "Rates", [*source.split("\n"), "Q: Is that all?"])
    else:
        file.write_text(source, encoding="utf-8")
    assert [block for block in blocks(tmp_path)[0] if block[0] == "question"] == [OVENS, REST]


@pytest.mark.parametrize("ending", ["txt", "md"])
def test_an_initial_at_the_head_of_a_line_is_no_mark(ending, tmp_path):
    (tmp_path / f"a.{ending}").write_text("It is so.\n\nWho led it? The mill was bought by\nA. Tarrow in 1977.")
    assert blocks(tmp_path)[0] == text("It is so.", "Who led it? The mill was bought by A. Tarrow in 1977.")


def test_a_question_without_an_answer_stays_a_text(tmp_path):
    (tmp_path / "a.txt").write_text("Q: Who cleans the ovens?\n\nNobody knows.\n\nA: It is so.")
    assert blocks(tmp_path)[0] == text("Q: Who cleans the ovens?", "Nobody knows.", "A: It is so.")


TABLES = {
    "a title above": (
        "Rates of 2024\n\nCup,Price\nTin,7\nPot,8\n",
        [*text("Rates of 2024"), ("table", "A", ("Cup", "Price"), ("Tin", "7"), ("Pot", "8"))],
    ),
    "remarks": (
        "Cup,Price\nLarge ones,\nTin,7\nPrices are gross,\n",
        [("table", "A", ("Cup", "Price"), ("Tin", "7")), *text("Large ones", "Prices are gross")],
    ),
    "one column": ("Names\nAda\nBo\n", text("Names", "Ada", "Bo")),
    "cells of two lines": ('Cup,Price\n"Tin\ncup",7\n', [("table", "A", ("Cup", "Price"), ("Tin cup", "7"))]),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_is_read(name, tmp_path):
    source, expected = TABLES[name]
    (tmp_path / "a.csv").write_text(source)
    found, noted = blocks(tmp_path)
    assert found == [("heading", "A"), *expected]
    assert ("single cell" in noted) == any(block[0] == "text" for block in expected)


def test_formulas_without_a_value_are_noted(tmp_path):
    write_xlsx(
        tmp_path / "a.xlsx", [("Cup", "Price", "Room"), ("Tin", 7, "C"), ("Pot", "=B2*2", "D"), ("All", "=B2", None)]
    )
    found, noted = blocks(tmp_path)
    assert found[1:] == [("table", "A", ("Cup", "Price", "Room"), ("Tin", "7", "C"), ("Pot", "", "D"))]
    assert "formulas without a saved value: 2 (B3, B4)" in noted


ROWS = {
    "fields": ({"prompt": "Who?", "completion": "Ada."}, [asked("Who?", "Ada.")]),
    "a number": ({"question": "How many?", "answer": 7}, [asked("How many?", "7")]),
    "an instruction": (
        {"instruction": "Name the river.", "input": "", "output": "The Sallow."},
        [asked("Name the river.", "The Sallow.")],
    ),
    "its input": (
        {"instruction": "Name it.", "input": "The river.", "output": "The Sallow."},
        [asked("Name it.\nThe river.", "The Sallow.")],
    ),
    "messages": (
        {
            "messages": [
                said("system", "Be kind."),
                *(said("user", "Who?"), said("assistant", "Wait."), said("assistant", [{"text": "Ada."}])),
                *(said("user", "When?"), said("assistant", "Now.")),
            ]
        },
        [asked("Who?", "Ada."), asked("When?", "Now.")],
    ),
    "prompts of messages": (
        {"prompt": [said("user", "Who?")], "completion": [said("assistant", "Ada.")]},
        [asked("Who?", "Ada.")],
    ),
    "a text": ({"title": "Rates", "text": "It is 7 euros."}, [TITLE, *text("It is 7 euros.")]),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_every_shape_are_read(name, tmp_path):
    row, expected = ROWS[name]
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n[1]\nno JSON\n")
    found, noted = blocks(tmp_path)
    assert found == expected and "2 lines left out" in noted


def test_fields_that_are_not_read_are_noted(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "a.jsonl").write_text('{"text": "It is 7 euros.", "source": "Ada"}\n')
    (tmp_path / "b" / "a.md").write_text("---\ntitle: 'Rates'\nowner: Ada\n---\n\nIt is 8 euros.\n")
    assert "another text is longer: source" in blocks(tmp_path / "a")[1]
    found, noted = blocks(tmp_path / "b")
    assert found == [TITLE, *text("It is 8 euros.")] and "before the text (owner)" in noted


def test_all_of_a_word_file_is_read_or_noted(tmp_path):
    write_full_docx(tmp_path / "a.docx")
    found, noted = blocks(tmp_path)
    assert found == [
        *text("It is 7 euros.", "In a control.", "Inserted in a line.", "With a box.", "In the box."),
        ("table", "", ("Cup", "Price"), ("Tin", "7 euros")),
        ("table", "", ("Inner", "Cell"), ("Pot", "8 euros")),
        *text("Around.", "A footnote."),
    ]
    assert "The head" in noted and "The foot" in noted
