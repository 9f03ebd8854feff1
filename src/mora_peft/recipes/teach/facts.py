"""Facts in documents, found by rules: names, numbers, dates and terms in sentences, and the cells of tables.

A fact is a span of a sentence that can be asked for. No model finds them, so that what is taught is what was written.
"""

import re
from dataclasses import dataclass

from .documents import Document
from .language import sentences
from .patterns import LEANING, is_name, patterns
from .verbs import ends_phrase, has_verb, starts_with_verb

_SHORTEST, _LONGEST = 18, 320  # characters of a sentence that can be asked about
_MOST_A_SENTENCE = 2
_REFERENCE = re.compile(r"\b(?:Fig|Figure|Table|Section|Equation|Eq|Ref)s?\.? $")
_REFERRING = frozenset("Fig Figs Figure Figures Table Tables Section Equation Eq Ref Refs".split())
_GOES_ON = re.compile(r"['’–±/-]| [ap]\.m\.| (?:to|or|±) \d")
_RANGE = re.compile(r"(?:\d (?:to|or|and) |± ?)$")
_SIZES = ("number", "quantity", "percent", "money")


@dataclass(frozen=True)
class Fact:
    """Something that a document says and that can be asked for.

    `sentence[start:end]` is the answer, of the given kind; `topic` is the heading that it stands under. Where it is the
    cell of a table, `entity` is its row and `column` the name of its column.
    """

    document: str
    title: str
    topic: str
    sentence: str
    start: int
    end: int
    kind: str
    language: str
    entity: str = ""
    column: str = ""

    @property
    def answer(self) -> str:
        return self.sentence[self.start : self.end]


def facts_of(document: Document) -> list[Fact]:
    """All facts of `document`, in its order, no answer in the same sentence twice."""
    found: list[Fact] = []
    topic = document.title
    for block in document.blocks:
        if block.kind == "heading":
            topic = block.text
        elif block.kind == "text":
            found += _in_text(document, topic, block.text)
        elif block.kind == "question":
            found += _in_text(document, topic, block.rows[0][0])
        else:
            found += _in_table(document, block.text or topic, block.rows)
    return list(dict.fromkeys(found))


def questions_of(document: Document) -> list[tuple[str, str]]:
    """The questions that `document` asks and answers itself: as rows, or as a heading with a question mark."""
    found, heading = [], None
    for block in document.blocks:
        if block.kind == "question":
            found.append((block.text, block.rows[0][0]))
        elif block.kind == "text" and heading is not None:
            found.append((heading, block.text))
        heading = block.text if block.kind == "heading" and block.text.rstrip()[-1:] in ("?", "？") else None
    return found


def _in_text(document: Document, topic: str, text: str) -> list[Fact]:
    found = []
    for sentence in sentences(text, document.language):
        # A sentence that leans on the one before it cannot be asked about alone; it is still learned as text.
        if not _SHORTEST // (1 + 2 * (document.language == "zh")) <= len(sentence) <= _LONGEST or LEANING.match(
            sentence
        ):
            continue
        for start, end, kind in _chosen(sentence, spans(sentence, document.language)):
            found.append(Fact(document.path, document.title, topic, sentence, start, end, kind, document.language))
    return found


def _chosen(sentence: str, found: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The spans of a sentence that are asked for: the last ones, for which the sentence says most before them.

    A name or plain number inside an English sentence's subject is what the sentence is about, and not what it says; a
    name that is all of the subject can be asked for. What is a part of a longer phrase cannot: of `five-year averages`
    or `4 to 5 years' supply` nobody would ask for a piece.
    """
    said = [
        (start, end, kind)
        for start, end, kind in found
        if not _is_piece(sentence, start, end, kind)
        and (
            kind not in ("name", "number")
            or (has_verb(sentence[:start]) if start else starts_with_verb(sentence[end:]))
        )
    ]
    return said[-_MOST_A_SENTENCE:]


def _is_piece(sentence: str, start: int, end: int, kind: str) -> bool:
    """Whether a span is a part of a longer phrase: of a range, of a reference, or before a noun that it belongs to."""
    before, after, answer = sentence[:start], sentence[end:], sentence[start:end]
    if (
        _REFERENCE.search(before)
        or answer in _REFERRING
        or _GOES_ON.match(after)
        or (kind in _SIZES and _RANGE.search(before))
    ):
        return True
    if kind == "name" and before.endswith("(") and after.startswith(")"):  # short for what stands before it
        return True
    if kind == "quantity" and starts_with_verb(answer.split()[-1]):
        return answer.isascii()
    bound = kind in ("name", "number") or "-" in answer
    return bound and kind != "date" and not ends_phrase(after)


def spans(sentence: str, language: str) -> list[tuple[int, int, str]]:
    """Start, end and kind of what can be asked for in a sentence, in order, none inside another."""
    found: list[tuple[int, int, str]] = []
    for kind, pattern in patterns(language).items():
        for match in pattern.finditer(sentence):
            start, end = match.span()
            if any(start < other_end and other_start < end for other_start, other_end, _ in found):
                continue
            if kind == "name" and not is_name(match[0], start, language):
                continue
            found.append((start, end, kind))
    return sorted(found)


def _in_table(document: Document, caption: str, rows: tuple[tuple[str, ...], ...]) -> list[Fact]:
    """The cells of a table as facts about its rows, which the first column names; of a table without a head, none."""
    head, *body = rows
    entities = [row[0] for row in body if row]
    if len(head) < 2 or len(set(entities)) < len(entities) or any(not name for name in head):
        return []
    found = []
    for row in body:
        for column, value in zip(head[1:], row[1:], strict=False):
            if not value or not row[0] or len(value) > 60:
                continue
            said = f"{head[0]} {row[0]}, {column}: {value}"
            start = len(said) - len(value)
            kinds = [kind for begin, end, kind in spans(f"x {value}", document.language) if end - begin == len(value)]
            kind = kinds[0] if kinds else f"cell {column}"
            found.append(
                Fact(
                    document.path, document.title, caption or document.title, said, start, len(said), kind,
                    document.language, row[0], column,
                )
            )  # fmt: skip
    return found
