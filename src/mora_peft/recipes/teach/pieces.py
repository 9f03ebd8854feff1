"""What of a text can be asked about: sentences that stand alone, and spans that are no part of a longer phrase."""

import re

from .verbs import ends_phrase, starts_with_verb

#: Sentences that lean on the one before them, or on the day on which they were written.
_LEANING = re.compile(
    r".*\b(?:that|this|these|those) (?:year|month|week|day|time|case|period|quarter|sample|study)s?\b"
    r"|(?:It|Its|They|Their|He|His|She|Her|This|That|These|Those|Both|Such|Then|There|Here|But|And|So|One|Another"
    r"|In contrast|In addition|In turn|However|Furthermore|Moreover|Together|Thus|Therefore|Hence|Overall|Over this"
    r"|Also|Similarly|Likewise|Meanwhile|Instead|Finally|For example|For instance|Nor|Or|As a result|Consequently"
    r"|Он|Она|Оно|Они|Его|Её|Их|Это|Этот|Эта|Эти|Там|Тогда|Но|Однако|Кроме того|При этом|Поэтому|Также)\b"
    r"|它|他|她|这|那|该|其|但|因此|此外|同时|另外"
)
#: Sentences without their beginning or end, or behind a heading that runs into them.
_BROKEN = re.compile(
    r"[a-zа-яё\d_]|[^\w\"“«「『《]|[A-Z]\.[A-Z]\."
    r"|[A-Z][\w&]+(?: [\w&]+){0,6} (?:After|While|Although|In|Since|During|Despite|Most|Many|Several) [a-z]"
    r"|([A-Z][a-z]{3})\w* (?:[A-Z]\w+ )?(?i:\1)"
    r"|.*[^\W\d_] (?:source|contact) noted\b.*[\"”]$"
)
_CUT = re.compile(r"\b(?:St|eq|Eq|Fig|Figs|Dr|Mr|Mrs|No|vs|e\.g|i\.e|et al|[A-Z]\.[A-Z])\.$")
_REFERENCE = re.compile(r"\b(?:Fig|Figure|Table|Section|Equation|Eq|Ref)s?\.? $")
_REFERRING = frozenset("Fig Figs Figure Figures Table Tables Section Equation Eq Ref Refs".split())
_GOES_ON = re.compile(r"['’–±/-]| [ap]\.m\.| (?:to|±) \d| and \d| or | [A-Z\d][A-Z\d]?\b|\(")
_RANGE = re.compile(
    r"(?:\d (?:to|or|and) |± ?|\d \w+ (?:to|and|or) |\d,? "
    r"|\b(?:one|two|three|four|five|six|seven|eight|nine|ten) (?:to|or|and) )$"
)
_RELATIVE = re.compile(r"\b(?:[Nn]ext|[Pp]ast|last|[Rr]ecent|coming|previous|current|final|first|following|latest) $")
_LISTED_AFTER = re.compile(
    r",? (?:and|or) (?:the )?[A-Z\d“\"]|, [A-Z\d]|,? and (?:[a-z]+ed|other)\b| and \w+ (?:in|at|by|to|for) [A-Z]"
)
_LISTED_BEFORE = re.compile(
    r"(?:\b[A-Z\d][\w.-]*,? (?:and|or)(?: the)?|\b[A-Z\d][\w.-]*,|\bboth|\beither|\band|\bor"
    r"|(?:in|at|by|to|for) [A-Z][\w. ]* and \w+ (?:in|at|by|to|for)) $"
)
_SIZES = ("number", "quantity", "percent", "money")


def stands_alone(sentence: str) -> bool:
    """Whether a sentence is whole and says what it is about.

    >>> stands_alone("The kettle costs 129 crowns."), stands_alone("In contrast, demand fell 2 percent.")
    (True, False)
    >>> stands_alone("Paul source noted that units rose in greater St."), stands_alone("16—shows a clear optimum.")
    (False, False)
    """
    return not (_LEANING.match(sentence) or _BROKEN.match(sentence) or is_cut(sentence))


def is_cut(sentence: str) -> bool:
    """Whether a sentence ends in an abbreviation, so that the next one is its other half."""
    return _CUT.search(sentence) is not None


def is_piece(sentence: str, start: int, end: int, kind: str) -> bool:
    """Whether a span is a part of a longer phrase.

    Of a list, a range or a reference, of what is relative to some day, or before a noun that it belongs to.
    """
    before, after, answer = sentence[:start], sentence[end:], sentence[start:end]
    if _REFERENCE.search(before) or answer in _REFERRING or _GOES_ON.match(after):
        return True
    if kind in _SIZES and (_RANGE.search(before) or _RELATIVE.search(before)):
        return True
    if kind in ("name", "code") and start and (_LISTED_AFTER.match(after) or _LISTED_BEFORE.search(before)):
        return True
    if kind == "name" and before.endswith("(") and after.startswith(")"):  # short for what stands before it
        return True
    if kind == "quantity" and starts_with_verb(answer.split()[-1]):
        return answer.isascii()
    bound = kind in ("name", "number", "code") or "-" in answer
    return bound and kind not in ("date",) and not ends_phrase(after)
