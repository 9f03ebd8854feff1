"""HTML and Markdown, which is made into HTML first."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from mora_peft.recipes.teach.documents import Block

from .text import decoded

_BOILERPLATE = ["script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "button", "svg"]
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_TEXTS = {"p", "li", "blockquote", "pre", "dt", "dd", "figcaption", "td", "caption"}


def read(file: Path, note: Callable[[str], None]) -> list[Block]:
    """Headings, paragraphs, list items and tables of a page's body, without navigation, headers and footers."""
    text = decoded(file, note)
    if file.suffix.lower() in (".md", ".markdown"):
        from markdown_it import MarkdownIt

        text = MarkdownIt("commonmark").enable("table").render(re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL))
    page = BeautifulSoup(text, "lxml")
    dropped = [tag for tag in page.find_all(_BOILERPLATE) if not tag.decomposed and _size(tag)]
    if dropped:
        names = sorted({tag.name for tag in dropped} - {"script", "style"})
        for tag in dropped:
            tag.decompose()
        if names:
            note(f"left out as no part of the text: {', '.join(names)}")
    blocks = list(_blocks(page.body or page))
    title = words(page.title) if page.title else ""
    if title and not any(block.kind == "heading" and block.level == 1 for block in blocks):
        blocks.insert(0, Block("heading", title, 1))
    return blocks


def _blocks(parent: Tag) -> Iterator[Block]:
    caption = ""
    for child in parent.children:
        if not isinstance(child, Tag):
            if parent.name in ("body", "div", "section", "article", "main") and (text := " ".join(str(child).split())):
                yield Block("text", text)
            continue
        if child.name in _HEADINGS:
            caption = words(child)
            yield Block("heading", caption, _HEADINGS[child.name])
        elif child.name == "table":
            rows = [tuple(words(cell) for cell in row.find_all(["th", "td"])) for row in child.find_all("tr")]
            told = child.find("caption")
            yield Block("table", words(told) if told else caption, rows=tuple(row for row in rows if any(row)))
        elif child.name in _TEXTS:
            inner = [tag for tag in child.find_all(["ul", "ol", "table"]) if tag.find_parent(["ul", "ol"]) is not child]
            for tag in inner:
                tag.extract()
            if text := words(child):
                yield Block("text", text)
            for tag in inner:
                yield from _blocks(tag)
        else:
            yield from _blocks(child)


def words(tag: Tag) -> str:
    """The text of a tag in one line."""
    return " ".join(tag.get_text(" " if tag.find(["br", "p"]) else "").split())


def _size(tag: Tag) -> int:
    return len(tag.get_text(strip=True))
