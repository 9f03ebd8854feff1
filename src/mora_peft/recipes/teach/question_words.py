"""The question word for an answer: for its kind, and more narrowly for its unit and for what stands before it."""

import re

from .facts import Fact
from .verbs import ARTICLES, BEING, PREPOSITIONS, is_noun, lasts

WH = {
    "en": {
        "date": "when", "time": "what time", "money": "how much", "percent": "what percentage", "code": "which code",
        "quantity": "how many", "duration": "how long", "number": "which number", "phone": "which phone number",
        "place": "where", "maker": "who", "event": "which occasion", "name": "who or what", "": "what",
    },
    "ru": {
        "date": "когда", "time": "какое время", "money": "сколько", "percent": "сколько процентов",
        "code": "какой код", "quantity": "сколько", "number": "сколько", "phone": "какой номер телефона",
        "place": "где", "name": "кто или что", "": "что",
    },
    "zh": {
        "date": "什么时候", "time": "几点", "money": "多少钱", "percent": "百分之多少", "code": "哪个编号",
        "quantity": "多少", "number": "多少", "phone": "哪个号码", "name": "谁", "": "什么",
    },
}  # fmt: skip

_DURATION = re.compile(r"(?:second|minute|hour|day|week|month|year)s?\b")
_UNIT = re.compile(r"^(?:[\d., \u00a0]*\d|[a-z]+)[ -]?((?:(?:square|cubic|working|calendar) )?[A-Za-z]+)$")
_UNIT_ZH = re.compile(r"^[\d.,一二三四五六七八九十百两]+(.+)$")
_EVENT = re.compile(r"\b(?:Day|Days|Fair|Festival|Conference|Congress|Christmas|Easter|Eve|Games|Week|Summit)$")
_PLACES = "UK US USA EU UAE NYC LA".split()
_MOVING = re.compile(r"\b(?:mov|relocat|travel|transfer)\w+ to(?: the)? ?$")
_PERSON = re.compile(
    r"\b(?:manager|director|officer|head|chair(?:man|woman)?|president|leader|founder|owner|editor|secretary|treasurer"
    r"|mayor|minister|chief|coach|teacher|architect|designer|author|inventor|doctor|nurse|mentor|curator)\b"
)
_ROOMS = ("Room", "Hall", "Gate", "Building", "Extension", "Section", "Article")
_OF_KIND = frozenset("town city village county state region district island river country month type".split())
#: After these verbs a term says what something is called: it does not tell one such thing from another.
NAMING = frozenset("call calls called name names named term terms termed".split())
#: Question words that say too little: of a code or a number, nobody knows which is meant.
UNSAID = ("which code", "which number")
#: What is counted, after `сколько`: Russian has another form behind 2 to 4.
_COUNTED_RU = {
    "рабоч": "рабочих дней", "дн": "дней", "день": "дней", "недел": "недель", "месяц": "месяцев", "лет": "лет",
    "год": "лет", "час": "часов", "минут": "минут", "человек": "человек", "сотрудник": "сотрудников",
    "литр": "литров", "килограмм": "килограммов", "метр": "метров", "рубл": "рублей", "тыс": "тысяч рублей",
}  # fmt: skip


def question_word(fact: Fact) -> str:
    """The words that ask for the answer of `fact`, in its language.

    >>> def of(sentence, answer, kind, language="en"):
    ...     start = sentence.index(answer)
    ...     return question_word(Fact("", "", "", sentence, start, start + len(answer), kind, language))
    >>> of("The company employs 412 people today.", "412 people", "quantity")
    'how many people'
    >>> of("A tour lasts 2 hours.", "2 hours", "quantity"), of("Trainees get 2 days.", "2 days", "quantity")
    ('how long', 'how many days')
    >>> of("They meet at Founders' Day.", "Founders' Day", "name"), of("They meet at Orme Hall.", "Orme Hall", "name")
    ('which occasion', 'where')
    >>> of("Отпуск составляет 2 дня.", "2 дня", "quantity", "ru"), of("年假为15天。", "15天", "quantity", "zh")
    ('сколько дней', '多少天')
    """
    if fact.language == "ru":
        return _russian(fact)
    if fact.language == "zh":
        unit = _UNIT_ZH.search(fact.answer)
        if fact.kind not in WH["zh"] and fact.sentence[: fact.start].rstrip("“「『《").endswith("为"):
            return "何"  # with the usual word it would ask why
        return WH["zh"].get(fact.kind, "什么") + (unit[1] if unit and fact.kind == "quantity" else "")
    return _english(fact)


def _english(fact: Fact) -> str:
    words, before, kind = WH["en"], fact.sentence[: fact.start], fact.kind
    said = before.split()
    last = said[-1] if said else ""
    if kind == "quantity":
        unit = _UNIT.search(fact.answer)
        if _DURATION.search(fact.answer) and not fact.sentence.startswith((" of ", " ahead", " off"), fact.end):
            short = last in PREPOSITIONS or lasts(last) or last in ("every", "than")
            return words["duration"] if short or not unit else f"{words[kind]} {unit[1]}"
        return f"{words[kind]} {unit[1]}" if unit else words[kind]
    if kind == "name":
        return words[_kind_of_name(fact.answer, before, last)]
    if kind in ("code", "number") and last in BEING:  # its name stands before it
        return words[""]
    return words.get(kind, words[""])


def _kind_of_name(answer: str, before: str, last: str) -> str:
    if last == "by" or (last in BEING and _PERSON.search(before)):
        return "maker"
    if _EVENT.search(answer):
        return "event"
    short = answer.isupper() and len(answer) < 6 and answer not in _PLACES  # of a disease, as a rule
    if _MOVING.search(before) or (re.search(r"\b(?:in|at)(?: the)? ?$", before) and not short):
        return "place"
    return "name"


def _russian(fact: Fact) -> str:
    words, answer = WH["ru"], fact.answer
    if fact.kind in ("quantity", "money"):
        unit = next((many for stem, many in _COUNTED_RU.items() if re.search(rf"\b{stem}", answer)), "")
        if not unit and fact.kind == "quantity":
            unit = answer.split()[-1].lstrip("0123456789.,")
        return f"{words[fact.kind]} {unit}".strip()
    if fact.kind == "term" and re.search(r"(?:назыв|назван|именует)\w* «?$", fact.sentence[: fact.start]):
        return "как"
    if fact.kind == "name" and re.search(r"\b[Вв](?: городе)? $", fact.sentence[: fact.start]):
        return words["place"]
    return words.get(fact.kind, words[""])


def with_noun(fact: Fact, before: str) -> tuple[str, str] | None:
    """`before` and the question word where a noun before the answer says what it is; None where none does.

    >>> sentence = "Brennholt sponsors the rowing club Marrowick Blades."
    >>> with_noun(Fact("", "", "", sentence, 35, 51, "name", "en"), sentence[:35])
    ('Brennholt sponsors', 'which rowing club')
    """
    said = before.split()
    if fact.kind not in ("term", "code", "number", "name") or len(said) < 3 or NAMING & set(said):
        return None
    if fact.kind in ("term", "name") and said[-1] == "of" and said[-2] in _OF_KIND and said[-3] == "the":
        return " ".join(said[:-3]), f"which {said[-2]}"
    start = len(said)
    while start and is_noun(said[start - 1]) and start > len(said) - 4:
        start -= 1
    nouns, ahead = said[start:], said[start - 1] if start else ""
    if not nouns or start < 2 or nouns[-1].endswith("ing"):
        return None
    if ahead in ARTICLES:
        return (" ".join(said[: start - 1]), f"which {' '.join(nouns)}") if ahead == "the" else None
    if fact.kind == "name" or ahead == "to" or len(nouns) > 1 or not (nouns[0].islower() or nouns[0] in _ROOMS):
        return None
    return " ".join(said[:start]), f"which {nouns[0].lower()}"


def is_named(fact: Fact, before: str, wh: str) -> bool:
    """Whether a term in quotation marks is what something is called, and no piece of what somebody said."""
    said = before.split()
    return bool(NAMING & set(said)) or wh != "what" or (said[-1:] and said[-1] in BEING and fact.answer[0].isupper())
