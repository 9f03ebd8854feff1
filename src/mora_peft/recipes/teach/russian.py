"""Russian questions from statements: the order of words is free, so that the question word goes to the front."""

import re

_LONGEST = 14  # words
_PREPOSITIONS = "в на с со до после от к по для за о об из у при через".split()
#: What a preposition before the answer becomes, by what is asked for; with others the case is not known.
_WITH = {
    "когда": {"в": "", "с": "с какого числа", "до": "до какого числа", "после": "после какого числа"},
    "какое время": {"в": "в какое время", "до": "до какого времени", "с": "с какого времени", "к": "к какому времени"},
    "где": {"в": ""},
}


def question(before: str, wh: str, after: str, proper: bool = False) -> str | None:
    """The question for what stands between `before` and `after`; None where no rule is sure.

    >>> question("Офис находится в ", "где", ".")
    'Где офис находится?'
    >>> question("Отпуск составляет ", "сколько дней", ".")
    'Сколько дней отпуск составляет?'
    >>> question("Склад открыт с ", "какое время", ".")
    'С какого времени склад открыт?'
    >>> question("Музеем руководит ", "кто или что", ".")
    'Кто или что музеем руководит?'
    >>> question("Письмо отправлено от ", "кто или что", ".")
    """
    after = after.rstrip(" .!;")
    if re.search(r"[,;:()—–«»]| (?:и|или|но|а) ", before + after) or len((before + after).split()) > _LONGEST:
        return None
    words = before.split()
    if len(words) < 2 or wh.startswith("какой") or words[-1] == "течение":
        return None
    if wh == "где" and words[-1] == "городе":
        words.pop()
    last = words[-1].lower()
    if last in _PREPOSITIONS:
        found = f"{last} {wh}" if wh.startswith("сколько ") and last in ("через", "за", "на") else None
        if (found := _WITH.get(wh, {}).get(last, found)) is None:
            return None
        wh, words = found or wh, words[:-1]
    elif wh == "какое время":
        return None
    if not proper:
        words[0] = words[0][:1].lower() + words[0][1:]
    return f"{wh[:1].upper()}{wh[1:]} {' '.join(words)}{after}?"
