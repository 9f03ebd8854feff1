"""HTML, and Markdown, which is made into HTML first.

What is one paragraph is told by the tags that are *not* inline: a list of all tags that hold text would never be whole,
and lose the text of those that it lacks.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from bs4.element import CData, NavigableString

from mora_peft.recipes.teach.documents import Block

from .faq import asks, pieces, question
from .text import decoded

_BOILERPLATE = "script style noscript template nav footer aside button select svg".split()
_FRAMES = ["header", "form"]  # boilerplate as well, unless the page's own text stands inside
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_INLINE = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark nobr output q rp rt "
    "ruby s samp small span strike strong sub sup time tt u var wbr".split()
)
_FRONT_MATTER = re.compile(r"\A---\n(?=[\w-]+ *:)(.*?)\n(?:---|\.\.\.) *(?:\n|\Z)", re.DOTALL)
_LINE = "\v"  # what a <br> becomes; two of them end a paragraph


def read(file: Path, kind: str, note: Callable[[str], None]) -> list[Block]:
    """Headings, paragraphs, list items, questions and tables of a page's body, without navigation and footers."""
    text, title = decoded(file, note), ""
    if kind in (".md", ".markdown"):
        text, title = _from_markdown(text, note)
    page = BeautifulSoup(text, "lxml")
    title = title or (words(page.title) if page.title else "")
    _leave_out(page, note)
    blocks = list(_blocks(page.body or page))
    if title and not any(block.kind == "heading" and block.level == 1 for block in blocks):
        blocks.insert(0, Block("heading", title, 1))
    return blocks


def words(tag: Tag) -> str:
    """The text of a tag in one line."""
    return " ".join(" ".join(text for _, text in _runs(tag)).split())


def _from_markdown(text: str, note: Callable[[str], None]) -> tuple[str, str]:
    """Markdown as HTML, and the title in its front matter."""
    from markdown_it import MarkdownIt

    fields: dict[str, str] = {}
    if front := _FRONT_MATTER.match(text):
        fields = dict(re.findall(r"^([\w-]+) *:[ \t]*(.*)$", front[1], re.MULTILINE))
        text = text[front.end() :]
    title = fields.pop("title", "").strip(" '\"")
    if fields:
        note(f"left out: the fields before the text ({', '.join(fields)})")
    return MarkdownIt("commonmark").enable("table").render(text), title


def _leave_out(page: BeautifulSoup, note: Callable[[str], None]) -> None:
    names = set()
    for tag in (*page.find_all(_BOILERPLATE), *page.find_all(_FRAMES)):
        if tag.decomposed or not _size(tag):
            continue
        if tag.name in _FRAMES and (tag.find(["p", "table", *_HEADINGS]) or _size(tag) > _size(page) / 2):
            continue
        names.add(tag.name)
        tag.decompose()
    if names := names - {"script", "style"}:
        note(f"left out as no part of the text: {', '.join(sorted(names))}")


def _size(tag: Tag) -> int:
    return len(tag.get_text(strip=True))


def _blocks(body: Tag) -> Iterator[Block]:
    made = dict([*_tables(body), *_terms(body), *_details(body)])
    caption = ""
    for home, text in _runs(body):
        if not text.strip():
            if block := made.pop(id(home), None):
                yield replace(block, text=block.text or caption)
        elif level := _HEADINGS.get(home.name, 6 * (home.name == "summary")):
            caption = " ".join(text.split())
            yield Block("heading", caption, level)
        else:
            for part in re.split(rf"{_LINE}\s*{_LINE}", text):
                yield from (Block("text", " ".join(piece.split())) for piece in pieces(part))


def _runs(root: Tag) -> Iterator[tuple[Tag, str]]:
    """Strings and inline tags between two borders of blocks, joined, with the block they stand in.

    A block yields an empty text where it begins. A loop and no recursion, as pages nest deeper than Python's stack.
    """
    home, run = root, ""
    for node in root.descendants:
        if isinstance(node, Tag):
            if node.name == "br":
                run += _LINE
            elif node.name not in _INLINE:
                yield home, run
                yield node, ""
                home, run = node, ""
        elif type(node) in (NavigableString, CData):  # and no comment
            if (block := _home(node, root)) is not home:
                yield home, run
                home, run = block, ""
            run += node
    yield home, run


def _home(node: NavigableString, root: Tag) -> Tag:
    """The heading that a string stands in, or else the innermost block."""
    block = None
    for parent in node.parents:
        if parent.name in _HEADINGS:
            return parent
        if block is None and parent.name not in _INLINE:
            block = parent
        if parent is root:
            break
    return block or root


def _tables(body: Tag) -> Iterator[tuple[int, Block]]:
    """Tables by the identity of their tags, which are emptied. One that only lays out a page is left to be text."""
    for tag in body.find_all("table"):
        if tag.decomposed or tag.find(["table", *_HEADINGS]):
            continue
        rows = [tuple(words(cell) for cell in row.find_all(["th", "td"])) for row in tag.find_all("tr")]
        rows = [row for row in rows if any(row)]
        if not rows or max(map(len, rows)) < 2 or (len(rows) < 2 and tag.find("p")):
            continue
        told = tag.find("caption")
        yield id(tag), Block("table", words(told) if told else "", rows=tuple(rows))
        tag.clear()


def _terms(body: Tag) -> Iterator[tuple[int, Block]]:
    """Terms with what is said of them, by the identity of their `<dt>`: a question, or a sentence about the term."""
    for term in body.find_all("dt"):
        told = []
        for tag in term.find_next_siblings(True):
            if tag.name != "dd" or tag.find(["dl", "table"]):
                break
            told.append(tag)
        asked, answer = words(term), " ".join(filter(None, map(words, told)))
        if not asked or not answer:
            continue
        for tag in (term, *told):
            tag.clear()
        yield id(term), question(asked, answer) if asks(asked) else Block("text", f"{asked.rstrip(':： ')}: {answer}")


def _details(body: Tag) -> Iterator[tuple[int, Block]]:
    """Questions that fold out their answers, by the identity of `<details>`; other summaries are headings."""
    for tag in body.find_all("details"):
        summary = tag.find("summary", recursive=False)
        if summary is None or not asks(asked := words(summary)) or tag.find(["dl", "table", "details"]):
            continue
        summary.extract()
        if answer := words(tag):
            tag.clear()
            yield id(tag), question(asked, answer)
        else:
            tag.append(summary)
