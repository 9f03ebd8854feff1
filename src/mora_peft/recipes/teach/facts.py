"""Facts in documents, found by rules: names, numbers, dates and terms in sentences, and the cells of tables.

A fact is a span of a sentence that can be asked for. No model finds them, so that what is taught is what was written.
"""

from dataclasses import dataclass

from .capitals import Capitals
from .documents import Block, Document
from .language import sentences
from .patterns import is_name, patterns
from .pieces import is_cut, is_piece, stands_alone
from .secrets import holds_secret
from .verbs import has_verb, starts_with_verb

_SHORTEST = {"zh": 6, "ru": 8}  # characters of a sentence that can be asked about
_LONGEST = 320
_MOST_A_SENTENCE = 2


@dataclass(frozen=True)
class Fact:
    """Something that a document says and that can be asked for.

    `sentence[start:end]` is the answer, of the given kind; `topic` is the heading that it stands under. Where it is the
    cell of a table, `entity` is its row and `column` the name of its column. `proper` says that the sentence's first
    word keeps its capital elsewhere; `titled`, that its question is to name the document, as there are several.
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
    proper: bool = False
    titled: bool = False

    @property
    def answer(self) -> str:
        return self.sentence[self.start : self.end]


def facts_of(document: Document) -> list[Fact]:
    """All facts of `document`, in its order, no answer in the same sentence twice."""
    found: list[Fact] = []
    topic = document.title
    names = Capitals([block.text for block in document.blocks if block.kind == "text"])
    for block in document.blocks:
        if block.kind == "heading":
            topic = block.text
        elif block.kind == "text":
            found += _in_text(document, topic, block.text, names)
        elif block.kind == "question":
            found += _in_text(document, topic, block.rows[0][0], names)
        else:
            found += _in_table(document, block.text or topic, block.rows)
    return list(dict.fromkeys(found))


def questions_of(document: Document) -> list[tuple[str, str]]:
    """The questions that `document` asks and answers itself: as rows, or as a heading with all text up to the next."""
    found: list[tuple[str, str]] = []
    heading, answer = "", []
    for block in (*document.blocks, Block("heading", "")):
        if block.kind == "question":
            found.append((block.text, block.rows[0][0]))
        elif block.kind == "text" and heading:
            answer.append(block.text)
        elif block.kind == "heading":
            if heading and answer:
                found.append((heading, "\n".join(answer)))
            heading, answer = block.text if block.text.rstrip().endswith(("?", "？")) else "", []
    return found


def _in_text(document: Document, topic: str, text: str, names: Capitals) -> list[Fact]:
    found = []
    language = document.language
    for number, sentence in enumerate(said := sentences(text, language)):
        # A sentence that leans on the one before it cannot be asked about alone; it is still learned as text.
        if not _SHORTEST.get(language, 14) <= len(sentence) <= _LONGEST or not stands_alone(sentence):
            continue
        if holds_secret(sentence) or (number and is_cut(said[number - 1])):
            continue
        for start, end, kind in _chosen(sentence, spans(sentence, language)):
            found.append(
                Fact(
                    document.path, document.title, topic, sentence, start, end, kind, language,
                    proper=names.are_kept(sentence),
                )
            )  # fmt: skip
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
        if not is_piece(sentence, start, end, kind)
        and (
            kind not in ("name", "number")
            or (has_verb(sentence[:start]) if start else starts_with_verb(sentence[end:]))
        )
    ]
    return said[-_MOST_A_SENTENCE:]


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
            if holds_secret(said):
                continue
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
