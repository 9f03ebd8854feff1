"""The wordings of a fact: those that it is taught in, and one that it is never taught in, by which it is asked for.

Each row has a prompt and what follows. Chats (`chat` true) are written with the tokenizer's template later.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from . import russian
from .english import active, clause, question
from .facts import Fact
from .question_words import NAMING, UNSAID, is_named, question_word, with_noun
from .verbs import ARTICLES, gives, takes_object


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
    under: str  # a question with the title of its document


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
        cell_asked='What does the table "{topic}" give as "{head}" for {entity}?',
        under='According to "{title}", {question}',
    ),
    "ru": Words(
        gap="Заполните пропуск: {before}____{after}",
        topic="{topic}: {before}",
        turned="{after}: {before}",
        asked=(),
        cell=("{topic}. {column} ({entity}):", "{topic} | {entity} | {column} |"),
        cell_questions=("Что указано для «{entity}» в графе «{column}»?", "{entity}: {column}?"),
        cell_asked="Меня интересует {entity} ({topic}). Какое значение имеет {column}?",
        under="«{title}»: {question}",
    ),
    "zh": Words(
        gap="填空：{before}____{after}",
        topic="{topic}：{before}",
        turned="{after}：{before}",
        asked=(),
        cell=("{topic}。{entity}的{column}是", "{topic} | {entity} | {column} |"),
        cell_questions=("{entity}的{column}是什么？", "{entity}：{column}？"),
        cell_asked="请查一下{topic}里的{entity}，{column}那一栏写的是什么？",
        under="《{title}》：{question}",
    ),
}  # fmt: skip
_COMMON = frozenset("about from with that this what when which into their your more".split())


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
    held_out = {key(questioned(fact)), key(questioned(replace(fact, titled=False)))}
    return rows + [Row(text, fact.answer, True) for text in asked if key(text) not in held_out]


def questioned(fact: Fact) -> str:
    """The wording that a fact is asked for in, and never taught in: a question as a person would put it."""
    return well_asked(fact) or _in_place(fact)


def well_asked(fact: Fact) -> str | None:
    """The question for `fact` where the rules are sure that it reads well; None where it is to be taught alone."""
    words, parts = WORDS.get(fact.language, WORDS["en"]), _parts(fact)
    if fact.entity:
        return words.cell_asked.format(**parts)
    asked = _moved(fact, active) or _moved(fact, question)
    if asked is None and _reads_well_in_place(fact, parts):
        asked = _in_place(fact)
    if asked is None or not fact.titled or _names(asked, fact.title):
        return asked
    lead = asked if _keeps_capital(fact, asked) else asked[:1].lower() + asked[1:]
    return words.under.format(question=lead, **parts)


def _moved(fact: Fact, form: Callable[[str, str, str, bool], str | None]) -> str | None:
    """A question with its question word in front; None where the rules, of English and Russian, do not reach."""
    before, after = (part := _parts(fact))["before"], part["after"]
    if fact.language == "ru":
        return russian.question(before, question_word(fact), after, fact.proper) if form is question else None
    if fact.language != "en":
        return None
    noun = with_noun(fact, before)
    before, wh = noun or (before, question_word(fact))
    said = before.split()
    second = (fact.kind in ("quantity", "money") and gives(said)) or (fact.kind == "term" and NAMING & set(said))
    if said and not takes_object(said[-1].lower()) and not second:
        return None  # a noun that belongs to the answer, or another phrase
    if noun is None and (wh in UNSAID or (fact.kind == "term" and not is_named(fact, before, wh))):
        return None
    return form(before, wh, after, fact.proper)


_LONGEST_IN_PLACE = 14  # words
_JOINED = re.compile(r"[,:()\[\]“”\"—±]| (?:and|or) ")


def _reads_well_in_place(fact: Fact, parts: dict[str, str]) -> bool:
    """Whether the sentence is a question with a question word in the answer's place: a short one that ends with it."""
    before, after = parts["before"], parts["after"]
    if fact.language not in WORDS:
        return fact.kind not in ("name", "term")  # better than no proof at all
    if fact.language == "zh":
        return len(before) + len(after) < 40 and "，" not in after
    if after.strip(" .!") or len(before.split()) > _LONGEST_IN_PLACE:
        return False
    if fact.language == "ru":
        labelled = re.fullmatch(r"[^,;:()]+: ", before) is not None
        return labelled or (fact.kind in ("quantity", "percent", "money", "number") and not before.endswith("течение "))
    said = before.split()
    if not said or _JOINED.search(before) or not takes_object(said[-1]) or said[-1] in ARTICLES:
        return False
    wh = question_word(fact)
    if wh in UNSAID or (wh in ("when", "where") and said[-1] in ("in", "on", "at", "of", "for")):
        return False
    return wh != "who or what" and (fact.kind != "term" or is_named(fact, before, wh))


def _in_place(fact: Fact) -> str:
    """The sentence with a question word where the answer was: good Chinese, and plain enough elsewhere."""
    parts = _parts(fact)
    wh = question_word(fact)
    wh = "whom" if wh == "who" and parts["before"].endswith(" by ") else wh
    asked = (parts["before"] + wh + parts["after"]).rstrip(" .!;。！；")
    return _capital(asked) + ("？" if fact.language == "zh" else "?")


def _names(question: str, title: str) -> bool:
    """Whether `question` has one of the title's words that say something, or the title has none."""
    said = [word for word in re.findall(r"\w{4,}", title.lower()) if word not in _COMMON] or list(title.lower())
    return any(word.rstrip("s") in question.lower() for word in said)


def _keeps_capital(fact: Fact, asked: str) -> bool:
    return fact.proper and asked.startswith(fact.sentence.split()[0])


def _parts(fact: Fact) -> dict[str, str]:
    before, after = fact.sentence[: fact.start], fact.sentence[fact.end :]
    if fact.kind == "term":  # its quotation marks would stay behind
        before, after = before.rstrip('“"«『「《'), re.sub(r'^([.,;]?)[”"»』」》]', r"\1", after)
    small = fact.column[:1].lower() + fact.column[1:]
    return {
        "before": before, "after": after, "title": fact.title, "topic": fact.topic, "entity": fact.entity,
        "head": fact.column, "column": fact.column if fact.column.isupper() else small,
    }  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def key(text: str) -> str:
    """A wording without case, punctuation and spaces: two that differ in these only are the same."""
    return re.sub(r"[\W_]+", "", text.lower())
