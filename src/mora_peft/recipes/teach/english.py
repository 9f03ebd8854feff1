"""English questions from statements, by the rules of grammar; what the rules do not surely reach gets no question."""

import re
from typing import NamedTuple

from .clauses import LINKS, belonging, is_single, own_clause
from .verbs import (
    ARTICLES,
    AUXILIARIES,
    BEING,
    FORMS,
    PREPOSITIONS,
    changes,
    ends_phrase,
    participle_of,
    past,
    starts_with_verb,
    third,
    verb_at,
)

_LEADING = frozenset(
    "In On At After Before Since While Although Though When If During For With By As Over Compared Because From To "
    "Without Under Between Among Despite Given Like Unlike Within".split()
)
_VAGUE = frozenset("about around roughly nearly approximately almost some exactly only just".split())
_PARTICLES = ("out", "up", "off", "over", "in", "on", "back")
_FIXED = ("out of", "because of", "instead of", "together with", "along with", "according to", "due to", "away from")
_ADVERBIAL = frozenset("for within after until before since by at in on".split())
_COMPARED = re.compile(r" (?:\w+er|below|above|ahead)\b")
_LONGEST_SUBJECT, _LONGEST = 7, 26  # words


class _Parts(NamedTuple):
    subject: list[str]
    said: str
    rest: list[str]
    asked: str
    after: str


def question(before: str, wh: str, after: str, proper: bool = False) -> str | None:
    """The question for what stands between `before` and `after`, which begins with `wh`; None where no rule is sure.

    `proper` says that the first word keeps its capital.

    >>> question("The kettle costs ", "how much", " in every shop.")
    'How much does the kettle cost in every shop?'
    >>> question("Tolva Bright was founded in ", "when", " by Ansel Coriband.", proper=True)
    'When was Tolva Bright founded by Ansel Coriband?'
    >>> question("Trainees receive ", "how many days", " of leave a year.")
    'How many days of leave do trainees receive a year?'
    >>> question("Accidents must be reported within ", "how long", ".")
    'Within how long must accidents be reported?'
    >>> question("Up to 7 days may be carried over until ", "when", ".")
    'Until when may up to 7 days be carried over?'
    >>> question("The canteen has ", "how many seats", ".")
    'How many seats does the canteen have?'
    >>> question("", "who or what", " leads the kettle group.")
    'Who or what leads the kettle group?'
    >>> question("Most bankers indicated loan quality was unchanged over ", "how long", ".")
    >>> question("Vacancy rates fell except in ", "where", ".")
    >>> question("Demand was flat relative to ", "how long", " ago.")
    """
    if not before.strip(" "):
        asked = clause(before, wh, after)
        return asked and f"{_capital(asked)}?"
    if (parts := _parts(before, wh, after, proper)) is None:
        return None
    if parts.said in ("has", "have", "had") and parts.rest[:1] in (["to"], ["yet"]):
        return None
    helper, verb = FORMS.get(parts.said, ("do", parts.said))
    if parts.said in ("has", "have", "had") and not _is_perfect(parts.rest):
        helper, verb = {"has": "does", "have": "do", "had": "did"}[parts.said], "have"
    words = [helper, *parts.subject, *([verb] if verb else []), *parts.rest]
    return f"{_capital(parts.asked)} {' '.join(words)}{_spaced(parts.after)}?"


def clause(before: str, wh: str, after: str, proper: bool = False) -> str | None:
    """The same question as a part of a sentence, such as one that begins with "Tell me".

    >>> clause("The kettle costs ", "how much", " in every shop.")
    'how much the kettle costs in every shop'
    >>> clause("Tolva Bright was founded in ", "when", " by Ansel Coriband.", proper=True)
    'when Tolva Bright was founded by Ansel Coriband'
    """
    if not before.strip(" "):
        after = after.rstrip(" .!;")
        first, *others = after.split() or [""]
        return f"{wh}{after}" if starts_with_verb(after) and is_single(after, first, others) else None
    if (parts := _parts(before, wh, after, proper)) is None:
        return None
    return f"{parts.asked} {' '.join([*parts.subject, parts.said, *parts.rest])}{_spaced(parts.after)}"


def active(before: str, wh: str, after: str, proper: bool = False) -> str | None:
    """The question for who does what is done `by` them; None where nothing is.

    >>> active("The large press was built in 1974 by ", "who", ".")
    'Who built the large press in 1974?'
    >>> active("Tours are led by ", "who", ".")
    'Who leads tours?'
    >>> active("Trips abroad must be approved by ", "who", ".")
    'Who must approve trips abroad?'
    >>> active("The audit is carried out by ", "who", ".")
    'Who carries out the audit?'
    """
    if not before.rstrip().endswith(" by") or (parts := _parts(before, wh, after, proper)) is None:
        return None
    said, rest, modal = parts.said, parts.rest, ""
    if said in AUXILIARIES and rest[:1] == ["be"]:
        said, rest, modal = "be", rest[1:], said
    verb = participle_of(rest[0]) if rest else None
    if said not in (*BEING, "be") or verb is None:
        return None
    form = f"{modal} {verb}" if modal else third(verb) if said in ("is", "are") else past(verb)
    particles = [word for word in rest[1:2] if word in _PARTICLES and rest[2:] == []]
    words = [form, *particles, *parts.subject, *rest[1 + len(particles) :]]
    return f"{_capital(wh)} {' '.join(words)}{_spaced(parts.after)}?"


def _parts(before: str, wh: str, after: str, proper: bool) -> _Parts | None:
    """The subject, its verb, the rest and the question word with what goes before it; None where they are not sure."""
    sentence, (before, after) = before, own_clause(before, after)
    proper = proper or not sentence.startswith(before.split(" ")[0])  # then it is as in mid-sentence
    words, after = before.rstrip(" ,").split(" "), after.rstrip(" .!;")
    if not ends_phrase(after) or after[1:2].isupper():
        return None
    place = verb_at(words)
    if place is None or place > _LONGEST_SUBJECT or len(words) + len(after.split()) > _LONGEST:
        return None
    subject, said, rest = words[:place], words[place], words[place + 1 :]
    # Subjects that hold a clause, or are none; and sentences of more than one clause, whose answers belong to one.
    if subject[0] in _LEADING or any(word[-2:] == "ed" or word in (*LINKS, "and") for word in subject[1:]):
        return None
    if subject[1:] and subject[-1] in PREPOSITIONS:
        return None
    if not is_single(f"{before}{after}", said, [*rest, *after.split()]):
        return None
    if not proper:
        subject[0] = subject[0][:1].lower() + subject[0][1:]
    moved, after = belonging(wh, after)
    if moved is None or after.endswith((" more", " less", " there", " as well")) or after.lstrip().startswith("ago"):
        return None
    if "except" in rest[-2:] or "?" in f"{before}{after}":
        return None
    wh += moved
    if rest and rest[-1] in ARTICLES:
        rest.pop()
    return _with_preposition(_Parts(subject, said, rest, wh, after))


def _is_perfect(rest: list[str]) -> bool:
    """Whether `rest`, which follows `has`, begins with a participle."""
    first = next((word for word in rest if not word.endswith("ly") and word not in ("not", "also")), "")
    return participle_of(first) is not None or first.endswith(("ed", "en"))


def _with_preposition(parts: _Parts) -> _Parts | None:
    """`parts` with the preposition before the answer in front of the question word, or dropped where it says nothing.

    None where it belongs to a noun that would stay behind: of `in boxes of 12 pieces`.
    """
    rest, wh, said = [*parts.rest], parts.asked, parts.said
    while rest and rest[-1] in _VAGUE and not wh.startswith("wh"):
        rest.pop()
    last = rest[-1] if rest else said
    if last == "every" and wh.startswith(("how long", "how many")):
        return parts._replace(rest=rest[:-1], asked="how often")
    if wh == "what percentage" and (changes(last) or last in ("down", "up") or _COMPARED.match(parts.after)):
        return parts._replace(rest=rest, asked=f"by {wh}")
    if last in ("than", "least", "most", "and", "or", "its", "their", "his", "her", "our", "every", "as"):
        return None
    if not rest or last not in PREPOSITIONS:
        return parts._replace(rest=rest)
    rest.pop()
    before = rest[-1] if rest else said
    if before == "up" and last == "to":
        rest.pop()
        return parts._replace(rest=rest, asked=f"up to {wh}")
    if f"{before} {last}" in _FIXED:
        return None
    beside_verb = not rest or participle_of(before) is not None or before in FORMS or before.endswith(("ed", "ly"))
    adverbial = last in _ADVERBIAL and not wh.startswith(("which", "who or", "what"))
    if not beside_verb and not adverbial and (last in ("of", "under", "above", "below", "between", "on", "with")):
        return None
    if not beside_verb and last not in _ADVERBIAL and any(word in PREPOSITIONS for word in rest):
        return None
    if said in BEING and rest[:1] and rest[0] in ARTICLES:  # the car park beside a gate
        return None
    if last in ("between", "over", "about", "around") or ("from" in rest and last in ("to", "until")):
        return None
    if (wh == "when" and last in ("in", "on", "at")) or (wh == "where" and last in ("in", "at", "to")):
        return parts._replace(rest=rest)
    asked = "whom" + wh.removeprefix("who") if wh.startswith("who") else wh
    if wh == "when" and last not in ("by", "since", "until", "from", "before", "after"):
        return None
    return parts._replace(rest=rest, asked=f"{last} {asked}")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _spaced(text: str) -> str:
    return text if not text or text[0] in ",;:" else " " + re.sub(r"^\s+", "", text)
