"""One English clause: whether a text is one, and the one that an answer stands in, where the sentence has more."""

import re
from itertools import pairwise

from .verbs import (
    ARTICLES,
    AUXILIARIES,
    FORMS,
    PREPOSITIONS,
    ends_phrase,
    is_finite,
    is_plain,
    participle_of,
    starts_with_verb,
    verb_at,
)

#: Words that begin a clause of their own.
LINKS = frozenset("that which who whom whose while whereas but although though because if unless whether so".split())
_TIMES = frozenset("after before when until once as".split())  # a clause behind these belongs to all of the sentence
_COMMA = re.compile(r", (?!\d)")
_LEADING = re.compile(
    r"(?:In|On|At|During|Since|By|For|Under|With|Until|From|Within) "
    r"(?!particular|general|fact|balance|all|least|part)[^,]{2,40}$"
)
_LEADS = re.compile(r"(?:In|On|At|During|Since|By|For|From|Within) (?:the )?$")
_TRAILING = re.compile(
    r", (?:which|who|while|whereas|but|although|though|because|so that|as|where|with|according to|led by|compared with"
    r"|up from|down from|including|such as) "
)

_SPEEDS = ("metres", "meters", "miles", "km", "litres", "liters")


def is_single(text: str, said: str, words: list[str]) -> bool:
    """Whether there is one clause: no other finite verb, no list, and nothing in brackets or between commas.

    >>> is_single("", "was", "founded in by Ansel".split()), is_single("", "say", "demand was flat".split())
    (True, False)
    """
    if re.search(r"[;:()—“”\"]|,(?!\d)| [–-] ", text) or any(word in LINKS for word in words):
        return False
    if words[:1] == ["and"] or words[-1:] == ["and"]:
        return False
    previous = said
    for number, (word, following) in enumerate(pairwise([*words, ""])):
        if word in ("and", "or") and (
            starts_with_verb(following)
            or (is_plain(said) and is_plain(following))
            or following in ("then", "also", "not")
            or following.endswith(("ed", "ly"))
            or following[:1].isdigit()
        ):
            return False
        helped = previous in (*AUXILIARIES, "be", "been", "being")
        unknown = len(word) > 4 and word.endswith("ed") and previous not in (*ARTICLES, *PREPOSITIONS)
        if (is_finite(word) or unknown) and not (helped and (unknown or participle_of(word) or word == "have")):
            return any(earlier in _TIMES for earlier in words[:number])
        if not word.endswith("ly") and word not in ("not", "also", "never", "now", "still"):
            previous = word
    return True


def own_clause(before: str, after: str) -> tuple[str, str]:
    """What stands before and after an answer in its own clause, with what leads in moved to the end.

    >>> own_clause("In 1988, the works moved to ", ".")
    ('the works moved to ', ' in 1988')
    >>> own_clause("In ", ", the works moved to Ostrander Park.")
    ('the works moved to Ostrander Park in ', '')
    >>> own_clause("Real estate lending, which accounts for most loans, increased ", ".")
    ('Real estate lending increased ', '')
    >>> own_clause("The company exports to ", ", and its largest market abroad is Veldania.")
    ('The company exports to ', '')
    >>> own_clause("In Rapid City, S.D., one source paid ", ".")
    ('In Rapid City, S.D., one source paid ', '.')
    """
    said, tail = before, after.rstrip(" .!;")
    if (found := _TRAILING.search(tail)) or (found := _joined(tail)):
        tail = tail[: found.start()]
    parts = _COMMA.split(said)
    if _LEADS.match(before) and after.startswith(", "):
        return f"{tail[2:]} {before[0].lower()}{before[1:]}", ""
    if len(parts) == 2 and _LEADING.match(parts[0]) and verb_at(parts[0].split()) is None:
        said, tail = parts[1], f"{tail} {parts[0][:1].lower()}{parts[0][1:]}"
    elif len(parts) == 3 and starts_with_verb(parts[2]) and verb_at(parts[0].split()) is None:
        said = f"{parts[0]} {parts[2]}"
    # A comma that is left may divide a list or a place from its country: then nothing is sure.
    return (before, after) if _COMMA.search(f"{said} {tail}") else (said, tail)


def _joined(tail: str) -> re.Match[str] | None:
    """Where another whole clause begins that `and` joins on."""
    found = re.search(r", and ", tail)
    return found if found and verb_at(tail[found.end() :].split()) is not None else None


def belonging(wh: str, after: str) -> tuple[str | None, str]:
    """What follows the answer and is asked for with it, and what remains; None where its end cannot be told.

    >>> belonging("how many days", " of leave a year")
    (' of leave', ' a year')
    >>> belonging("how many centimetres", " long")
    (' long', '')
    """
    sized = wh.startswith(("how many", "how much", "what percentage"))
    if sized and (found := re.match(r" (?:ahead|long|wide|high|deep|off)\b(?! [a-z]*ly\b)", after)):
        if found[0] != " off" or not re.match(r" off (?:the|a|an|all|every) ", after):
            return found[0], after[found.end() :]
    elif sized and wh.endswith(_SPEEDS) and (found := re.match(r" (?:an hour|a second|per \w+)\b", after)):
        return found[0], after[found.end() :]
    elif not after.startswith(" of "):
        return "", after
    if not sized:
        return None, after
    words = after.split()
    count = 2 if words[1:2] and words[1] in (*ARTICLES, "its", "their", "his", "her", "our", "all", "every") else 1
    start = count
    while count < len(words) and not (
        words[count] in (*ARTICLES, *FORMS, "each", "per", "at", "every")
        or (not ends_phrase(f" {words[count - 1]}") and ends_phrase(f" {words[count]}"))
    ):
        count += 1
    if count == start:
        return None, after
    return f" {' '.join(words[:count])}", f" {' '.join(words[count:])}" if words[count:] else ""
