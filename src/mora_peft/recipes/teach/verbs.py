"""English questions from statements: the verb of a sentence is found in a list, and moved or split as grammar asks."""

import re
from itertools import pairwise

_AUXILIARIES = "is are was were has have had can could must may will would should does do did".split()
_PLAIN = """
    answer apply arrive ask belong bring build buy call carry charge close come contain cost cover deliver
    design earn employ end expire fit found get give go grow hire hold include introduce invent join keep last
    launch lead leave lie live make manage measure meet mix move name need offer open order own pay print
    produce publish receive recruit repair replace report require return run sell send serve ship sign sit
    sleep stand start stay store supply take teach test draw reach depend lose set sing train travel turn use
    visit wear weigh win write approve chair check choose head oversee bake roast sponsor spend enter repay
    refund settle handle process allow suggest indicate remain provide improve occur involve describe identify
    observe perform obtain compare contribute
""".split()
_IRREGULAR = {
    "began": "begin", "became": "become", "brought": "bring", "built": "build", "bought": "buy",
    "came": "come", "gave": "give", "went": "go", "grew": "grow", "held": "hold", "kept": "keep",
    "led": "lead", "left": "leave", "made": "make", "met": "meet", "paid": "pay", "ran": "run",
    "sold": "sell", "sent": "send", "stood": "stand", "took": "take", "taught": "teach", "lost": "lose",
    "drew": "draw", "sang": "sing", "set": "set", "won": "win", "wrote": "write", "chose": "choose",
    "spent": "spend", "got": "get", "lay": "lie",
}  # fmt: skip


def _third(verb: str) -> str:
    if verb[-1] == "y" and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


def _past(verb: str) -> str:
    if verb[-1] == "y" and verb[-2] not in "aeou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in ("ship", "fit") else "") + ("d" if verb.endswith("e") else "ed")


_FORMS = {_third(verb): ("does", verb) for verb in _PLAIN} | {_past(verb): ("did", verb) for verb in _PLAIN}
_FORMS |= {past: ("did", verb) for past, verb in _IRREGULAR.items()}
_FORMS |= {auxiliary: (auxiliary, "") for auxiliary in _AUXILIARIES}
_COMMON = """
    The A An All Every Each Our New Most Staff Employees Visitors Customers Orders Invoices Managers Guests
    Repairs Parents Shops Tours Parcels Refunds Groups Trips Accidents Forklifts Keys Lost Rooms Backups Gift
    Letters Calls Team Children Heads Trains Expense Private Courses Language Interviews Pictures References
    Exit Retired Spare Test Meetings Requests Claims Deliveries Returns Retailers Trainees Night Free Standard
    Express We
""".split()
_LEADING = "In On At After Before Since While Although When If During For With By As Over Compared Because From".split()
_BEING = ("is", "are", "was", "were")
_ARTICLES = ("a", "an", "the")
_LINKS = ("that", "which", "who", "and", "because")
_LONGEST_SUBJECT, _LONGEST = 7, 30  # words
_FUNCTION = """
    and or but nor as than then that which who whose whom when where while if because so although though not also only
    again alone ago later earlier today yesterday tomorrow instead together too up down out off away back once twice
    each per via between among during against through across around near behind beside above below inside outside
    without alone here there the a an this these those its their his her our your all both any no more less most least
    it they he she we you i to being been be
""".split()
_PREPOSITIONS = "in on at by from to for with of under after before since until within over about".split()


def question(before: str, wh: str, after: str) -> str | None:
    """The question for what stands between `before` and `after`, which begins with `wh`; None where no verb is found.

    >>> question("The kettle costs ", "how much", " in every shop.")
    'How much does the kettle cost in every shop?'
    >>> question("Tolva Bright was founded in ", "when", " by Ansel Coriband.")
    'When was Tolva Bright founded by Ansel Coriband?'
    >>> question("Trainees spend ", "how long", " with a partner.")
    'How long do trainees spend with a partner?'
    >>> question("", "who or what", " leads the kettle group.")
    'Who or what leads the kettle group?'
    """
    if not before.strip(" "):
        asked = clause(before, wh, after)
        return asked and f"{_capital(asked)}?"
    after = after.rstrip(" .!;")
    if (parts := _parts(before, wh, after)) is None:
        return None
    subject, said, rest = parts
    helper, verb = _FORMS.get(said, ("do", said))
    return f"{_capital(wh)} {' '.join([helper, *subject, *([verb] if verb else []), *rest])}{_spaced(after)}?"


def clause(before: str, wh: str, after: str) -> str | None:
    """The same question as a part of a sentence, such as one that begins with "Tell me".

    >>> clause("The kettle costs ", "how much", " in every shop.")
    'how much the kettle costs in every shop'
    >>> clause("Tolva Bright was founded in ", "when", " by Ansel Coriband.")
    'when Tolva Bright was founded by Ansel Coriband'
    """
    after = after.rstrip(" .!;")
    if not before.strip(" "):
        return f"{wh}{after}" if starts_with_verb(after) else None
    if (parts := _parts(before, wh, after)) is None:
        return None
    subject, said, rest = parts
    return f"{wh} {' '.join([*subject, said, *rest])}{_spaced(after)}"


def active(before: str, wh: str, after: str) -> str | None:
    """The question for who does what is done `by` them; None where nothing is.

    >>> active("The large press was built by ", "who", " in 1974.")
    'Who built the large press in 1974?'
    >>> active("Tours are led by ", "who", ".")
    'Who leads tours?'
    """
    after = after.rstrip(" .!;")
    if not before.rstrip().endswith(" by") or (parts := _parts(before, wh, after)) is None:
        return None
    subject, said, rest = parts
    if said not in _BEING or len(rest) != 2 or _FORMS.get(rest[0], ("", ""))[0] != "did":
        return None
    verb = _third(_FORMS[rest[0]][1]) if said in ("is", "are") else rest[0]
    return f"{_capital(wh)} {' '.join([verb, *subject])}{_spaced(after)}?"


def _parts(before: str, wh: str, after: str) -> tuple[list[str], str, list[str]] | None:
    """The subject, the first verb and the rest of what stands before the answer; None where they cannot be told."""
    words = before.rstrip(" ,").split(" ")
    if re.search(r"[;:()—]", before + after):  # a verb may be of another clause
        return None
    place = _verb_at(words)
    if place is None or place > _LONGEST_SUBJECT or len(words) + len(after.split()) > _LONGEST:
        return None
    # Subjects that hold a clause, or are none.
    if words[0] in _LEADING or any(word[-1:] == "," or word[-2:] == "ed" or word in _LINKS for word in words[1:place]):
        return None
    # Where a second verb or value is joined on, the question would be about both.
    if (
        words[-1] == "and"
        or after.startswith(" and ")
        or any(word == "and" and later in _FORMS for word, later in pairwise([*words[place:], *after.split()]))
    ):
        return None
    subject, rest = words[:place], words[place + 1 :]
    if words[1] in _PREPOSITIONS and words[1] != "of":  # growth in demand, but University of Ontario
        subject[0] = subject[0].lower()
    subject[0] = _lowered(subject[0])
    if rest and rest[-1] in _ARTICLES:
        rest.pop()
    if rest and rest[-1] in _PREPOSITIONS and wh in ("when", "where"):
        rest.pop()
    return subject, words[place], rest


def has_verb(text: str) -> bool:
    """Whether the list of verbs has one of the words of `text` after its first."""
    return not text.isascii() or _verb_at(text.rstrip().split(" ")) is not None


def starts_with_verb(text: str) -> bool:
    """Whether the first word of `text` is a verb of the list; what is not plain English is taken to have one."""
    return not text.isascii() or (text.split() or [""])[0] in _FORMS


def ends_phrase(text: str) -> bool:
    """Whether what comes before `text` is the end of its phrase: no noun that belongs to it follows at once."""
    found = re.match(r" ([a-z]+)", text)
    return found is None or found[1].endswith("ly") or found[1] in {*_FORMS, *_PLAIN, *_PREPOSITIONS, *_FUNCTION}


def is_noun(word: str) -> bool:
    """Whether `word` may be one that a name follows, such as `network`: no verb, preposition or article."""
    others = {*_FORMS, *_PLAIN, *_PREPOSITIONS, *_ARTICLES, *_FUNCTION, "called", "named"}
    return word.isalpha() and word not in others


def _verb_at(words: list[str]) -> int | None:
    """The place of the first verb after the first word: a plain form counts behind a plural, a noun before none."""
    for place in range(1, len(words)):
        if place == 1 and words[0].lower() in _ARTICLES:
            continue  # a lost key
        following = words[place + 1] if place + 1 < len(words) else ""
        if words[place] in _FORMS and not (words[place] not in _AUXILIARIES and following in _FORMS):
            return place
        if words[place] in _PLAIN and words[place - 1].endswith("s"):
            return place
    return None


def _lowered(word: str) -> str:
    """The first word of a sentence as it is within one: names keep their capitals."""
    return word.lower() if word in _COMMON else word


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _spaced(text: str) -> str:
    return text if not text or text[0] in ",;:" else " " + re.sub(r"^\s+", "", text)
