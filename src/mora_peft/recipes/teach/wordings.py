"""The wordings of a fact: those that it is taught in, and one that it is never taught in, by which it is asked for.

Each row has a prompt and what follows. Chats (`chat` true) are written with the tokenizer's template later.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .facts import Fact
from .verbs import active, clause, is_noun, question


class Row(NamedTuple):
    """What the model is given, what it is to say, and whether a user and an assistant are speaking."""

    prompt: str
    completion: str
    chat: bool


@dataclass(frozen=True)
class Words:
    """What the wordings of a language are made of; {braces} take parts of a fact."""

    gap: str  # a sentence with a gap, asked for in a chat
    topic: str  # what a sentence stands under
    turned: str  # what follows the answer first, then what is before it
    asked: tuple[str, ...]  # sentences around a question
    cell: tuple[str, ...]  # a table's cell as text, up to its value
    cell_questions: tuple[str, ...]  # taught
    cell_asked: str  # never taught
    wh: dict[str, str]  # question words by the kind of an answer; "" for all other kinds


WORDS = {
    "en": Words(
        gap="Fill in the gap: {before}____{after}",
        topic="{topic}: {before}",
        turned="{after}: {before}",
        asked=(
            "Tell me {clause}.", "Do you know {clause}?", "I would like to know {clause}.", "Please find out {clause}.",
            "Can you say {clause}?", "{topic}: {clause}?",
        ),
        cell=("{topic}. The {column} of {entity} is", "{topic} | {entity} | {column} |"),
        cell_questions=(
            "What is the {column} of {entity}?", "Tell me the {column} of {entity}.", "{entity}: {column}?",
            "Do you know the {column} of {entity}?",
        ),
        cell_asked="I am looking at {entity} in {topic}. Which {column} does it have?",
        wh={
            "date": "when", "time": "what time", "money": "how much", "percent": "what percentage",
            "code": "which code", "quantity": "how many", "duration": "how long",
            "number": "which number", "place": "where", "maker": "who", "name": "who or what", "": "what",
        },
    ),
    "ru": Words(
        gap="Заполните пропуск: {before}____{after}",
        topic="{topic}: {before}",
        turned="{after}: {before}",
        asked=(),
        cell=("{topic}. {column} ({entity}):", "{topic} | {entity} | {column} |"),
        cell_questions=("Что указано для «{entity}» в графе «{column}»?", "{entity}: {column}?"),
        cell_asked="Меня интересует {entity} ({topic}). Какое значение имеет {column}?",
        wh={
            "date": "когда", "time": "в какое время", "money": "сколько денег",
            "percent": "сколько процентов", "code": "какой код", "quantity": "сколько", "number": "сколько",
            "name": "кто или что", "": "что",
        },
    ),
    "zh": Words(
        gap="填空：{before}____{after}",
        topic="{topic}：{before}",
        turned="{after}：{before}",
        asked=(),
        cell=("{topic}。{entity}的{column}是", "{topic} | {entity} | {column} |"),
        cell_questions=("{entity}的{column}是什么？", "{entity}：{column}？"),
        cell_asked="请查一下{topic}里的{entity}，{column}那一栏写的是什么？",
        wh={
            "date": "什么时候", "time": "几点", "money": "多少钱", "percent": "百分之多少", "code": "什么编号",
            "quantity": "多少", "number": "多少", "name": "谁或什么", "": "什么",
        },
    ),
}  # fmt: skip


_DURATION = re.compile(r"(?:second|minute|hour|day|week|month|year)s?\b")
_UNIT = re.compile(r"^[\d.,]+ ((?:square |cubic )?[a-z]{3,}s)$")


def taught(fact: Fact) -> list[Row]:
    """The wordings that a fact is taught in: as it stands, with a gap, turned around, and as questions."""
    words, parts = WORDS.get(fact.language, WORDS["en"]), _parts(fact)
    if fact.entity:
        said = [Row(text.format(**parts), fact.answer, False) for text in words.cell]
        return [*said, *(Row(text.format(**parts), fact.answer, True) for text in words.cell_questions)]
    rows = [
        Row(words.gap.format(**parts), fact.answer, True),
        Row(words.topic.format(**parts).rstrip(), fact.answer + parts["after"], False),
    ]
    end = parts["after"].strip(" ,.;:。；，")
    if parts["before"].strip() and len(end) > 3:
        rows.append(Row(words.turned.format(before=parts["before"], after=_capital(end)).rstrip(), fact.answer, False))
    moved, asked = _moved(fact, question), [_in_place(fact)]
    if moved is not None:
        asked += [moved, *(text.format(clause=_moved(fact, clause), **parts) for text in words.asked)]
    held_out = key(questioned(fact))
    return rows + [Row(text, fact.answer, True) for text in asked if key(text) != held_out]


def questioned(fact: Fact) -> str:
    """The wording that a fact is asked for in, and never taught in: a question as a person would put it."""
    words, parts = WORDS.get(fact.language, WORDS["en"]), _parts(fact)
    if fact.entity:
        return words.cell_asked.format(**parts)
    return _moved(fact, active) or _moved(fact, question) or _in_place(fact)


#: After these verbs a term says what something is called: it does not tell one such thing from another.
_NAMING = frozenset("call calls called name names named term terms termed".split())


def _moved(fact: Fact, form: Callable[[str, str, str], str | None]) -> str | None:
    """A question by the rules of English; None in other languages, and where the rules do not reach."""
    if fact.language in ("ru", "zh"):
        return None
    words, parts = WORDS.get(fact.language, WORDS["en"]), _parts(fact)
    before, wh = parts["before"], _wh(fact, words)
    said = before.split()
    named = fact.kind in ("term", "code", "number") and len(said) > 2 and not _NAMING & set(said)
    if named and is_noun(said[-1]) and said[-2] != "to":
        # `the network "Guest"`: which network.
        before, wh = " ".join(said[:-1]), f"which {said[-1]}"
    return form(before, wh, parts["after"])


def _in_place(fact: Fact) -> str:
    """The sentence with a question word where the answer was: good Chinese, and plain enough elsewhere."""
    words, parts = WORDS.get(fact.language, WORDS["en"]), _parts(fact)
    asked = (parts["before"] + _wh(fact, words) + parts["after"]).rstrip(" .!;。！；")
    return _capital(asked) + ("？" if fact.language == "zh" else "?")


def _wh(fact: Fact, words: Words) -> str:
    """The question word for a fact's answer: for its kind, or more narrowly for what stands before it or in it."""
    kind, before = fact.kind, fact.sentence[: fact.start].split()
    if kind == "quantity" and _DURATION.search(fact.answer) and not fact.sentence.startswith(" of ", fact.end):
        kind = "duration"
    if kind == "name" and before:
        kind = "place" if before[-1] in ("in", "at", "behind", "beside") else "maker" if before[-1] == "by" else kind
    if kind == "quantity" and (unit := _UNIT.search(fact.answer)):
        return f"{words.wh[kind]} {unit[1]}"
    return words.wh.get(kind) or words.wh.get(fact.kind, words.wh[""])


def _parts(fact: Fact) -> dict[str, str]:
    before, after = fact.sentence[: fact.start], fact.sentence[fact.end :]
    if fact.kind == "term":  # its quotation marks would stay behind
        before, after = before.rstrip('“"«『「《'), re.sub(r'^([.,;]?)[”"»』」》]', r"\1", after)
    return {
        "before": before, "after": after, "title": fact.title, "topic": fact.topic, "entity": fact.entity,
        "column": fact.column if fact.column.isupper() else fact.column[:1].lower() + fact.column[1:],
    }  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def key(text: str) -> str:
    """A wording without case, punctuation and spaces: two that differ in these only are the same."""
    return re.sub(r"[\W_]+", "", text.lower())
