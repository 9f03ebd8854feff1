"""English words by their kind, in lists: nothing here parses, and what no list has is left alone."""

import re

AUXILIARIES = "is are was were has have had can could must may will would should does do did".split()
BEING = ("is", "are", "was", "were")
_PLAIN = """
    answer apply arrive ask belong bring build buy call carry charge close come contain cost cover deliver
    design earn employ end expire find fit found get give go grow hire hold include introduce invent join keep last
    launch lead leave lie live make manage measure meet mix move name need offer open order own pay print
    produce publish receive recruit repair replace report require return run sell send serve ship sign sit
    sleep stand start stay store supply take teach test draw reach depend lose set sing train travel turn use
    visit wear weigh win write approve chair check choose head oversee bake roast sponsor spend enter repay
    refund settle handle process allow suggest indicate remain provide improve occur involve describe identify
    observe perform obtain compare contribute service appear die rise fall drop decline increase decrease expand gain
    climb slip ease continue begin become see show say note expect cite tell feel know form accept complete create
    grant deposit collect cancel clean install inspect certify develop direct found edit compose paint bind
    limit exceed total equal appoint elect host organize organise present prepare calibrate submit release export import
    book hand reward plant result advise
""".split()
_IRREGULAR = {
    "began": "begin", "became": "become", "brought": "bring", "built": "build", "bought": "buy",
    "came": "come", "gave": "give", "went": "go", "grew": "grow", "held": "hold", "kept": "keep",
    "led": "lead", "left": "leave", "made": "make", "met": "meet", "paid": "pay", "ran": "run",
    "sold": "sell", "sent": "send", "stood": "stand", "took": "take", "taught": "teach", "lost": "lose",
    "drew": "draw", "sang": "sing", "set": "set", "won": "win", "wrote": "write", "chose": "choose",
    "spent": "spend", "got": "get", "lay": "lie", "rose": "rise", "fell": "fall", "saw": "see", "said": "say",
    "told": "tell", "found": "find", "felt": "feel", "knew": "know", "bound": "bind",
}  # fmt: skip
_PARTICIPLES = {
    "drawn": "draw", "written": "write", "chosen": "choose", "taken": "take", "given": "give", "run": "run",
    "sung": "sing", "worn": "wear", "begun": "begin", "seen": "see", "known": "know", "shown": "show",
    "grown": "grow", "overseen": "oversee", "become": "become", "fallen": "fall", "risen": "rise", "been": "be",
}  # fmt: skip
#: Verbs whose forms are nouns as well: `orders`, `costs`, `repairs`.
_NOUNS_TOO = frozenset(
    """
    answer bake book call charge check clean cost cover decline decrease deposit design draw drop ease end
    estimate export fall fit form found gain grant hand head hire host import increase last launch lead leave
    lie limit make measure mix move name need note offer order paint plant present print process produce release
    repair report result return reward rise roast run sell service set ship show sign sit sleep sponsor stand
    start stay store supply test total train travel turn use visit
    """.split()
)
_DOUBLED = ("ship", "fit", "drop", "slip", "submit")
_GIVING = frozenset("give pay offer grant sell charge send cost award allow".split())
_CHANGING = frozenset("rise fall drop decline increase decrease expand gain climb slip grow improve".split())
_LASTING = frozenset("last take wait stay live run is are was were be".split())


def third(verb: str) -> str:
    """`pays`, `carries`, `reaches`."""
    if verb[-1] == "y" and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


def _past(verb: str) -> str:
    if verb[-1] == "y" and verb[-2] not in "aeou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in _DOUBLED else "") + ("d" if verb.endswith("e") else "ed")


_PAST_OF = {verb: past for past, verb in _IRREGULAR.items()}
#: A finite form: the auxiliary that asks for it, and the plain verb ("" where it is an auxiliary itself).
FORMS = {third(verb): ("does", verb) for verb in _PLAIN}
FORMS |= {_past(verb): ("did", verb) for verb in _PLAIN if verb not in _PAST_OF}
FORMS |= {past: ("did", verb) for past, verb in _IRREGULAR.items()}
FORMS |= {auxiliary: (auxiliary, "") for auxiliary in AUXILIARIES}

ARTICLES = ("a", "an", "the")
PREPOSITIONS = (
    "in on at by from to for with of under after before since until within over about between through during above "
    "below into behind beside near against across around without via throughout "
    "outside inside toward towards"
).split()
_FUNCTION = """
    and or but nor as than then that which who whom whose when where while if because so although though not also only
    again alone ago later earlier today yesterday tomorrow instead together too up down out off away back once twice
    each per through inside outside here there the a an this these those its their his her our your all both any no
    more less most least every it they he she we you i to being been be ahead long wide high deep old
""".split()


def has_verb(text: str) -> bool:
    """Whether the lists have a verb among the words of `text` after its first."""
    return not text.isascii() or verb_at(text.rstrip().split(" ")) is not None


def starts_with_verb(text: str) -> bool:
    """Whether the first word of `text` is a finite verb; what is not plain English is taken to have one."""
    return not text.isascii() or (text.split() or [""])[0] in FORMS


def ends_phrase(text: str) -> bool:
    """Whether what comes before `text` is the end of its phrase: no noun that belongs to it follows at once."""
    found = re.match(r" ([a-z]+)", text)
    adverb = found is not None and found[1].endswith("ly") and found[1] not in ("family", "supply", "assembly", "reply")
    return found is None or adverb or found[1] in {*FORMS, *_PLAIN, *PREPOSITIONS, *_FUNCTION}


def is_noun(word: str) -> bool:
    """Whether `word` may be one that a name follows, such as `network`: no verb, preposition or article."""
    others = {*FORMS, *_PLAIN, *PREPOSITIONS, *ARTICLES, *_FUNCTION, *_PARTICIPLES, "called", "named", "worth"}
    return word.isalpha() and word not in others and not word.endswith(("ly", "ed")) and word not in ("late", "early")


def takes_object(word: str) -> bool:
    """Whether what is asked for may follow `word` at once: a verb, `to be`, a preposition or an article."""
    return word.endswith(("ly", "ed", "ing")) or word in {
        *FORMS, *_PLAIN, *PREPOSITIONS, *ARTICLES, *_PARTICIPLES, "be", "worth", "up", "down", "every", "only",
    }  # fmt: skip


def participle_of(word: str) -> str | None:
    """The plain verb of a past participle that the lists have.

    >>> participle_of("drawn"), participle_of("founded"), participle_of("kettle")
    ('draw', 'found', None)
    """
    if word in _PARTICIPLES:
        return _PARTICIPLES[word]
    helper, verb = FORMS.get(word, ("", ""))
    return verb if helper == "did" and verb else None


def past(verb: str) -> str:
    """`founded`, `led`."""
    return _PAST_OF.get(verb) or _past(verb)


def is_finite(word: str) -> bool:
    """Whether `word` is most likely a verb with a subject of its own: no noun, such as `orders`."""
    helper, verb = FORMS.get(word, ("", ""))
    return bool(helper) and not (helper == "does" and verb in _NOUNS_TOO)


def gives(words: list[str]) -> bool:
    """Whether one of `words` takes two objects, as in "pays employees 5 crowns"."""
    return any(word in _GIVING or FORMS.get(word, ("", ""))[1] in _GIVING for word in words)


def changes(word: str) -> bool:
    """Whether what is measured changes by an amount: `rose`, `fell`."""
    return word in _CHANGING or FORMS.get(word, ("", ""))[1] in _CHANGING


def is_plain(word: str) -> bool:
    """Whether `word` may be a verb of which the subject is plural."""
    return word in _PLAIN


def lasts(word: str) -> bool:
    """Whether the time after `word` is how long something is or takes, and no number of days to be had."""
    return word in _LASTING or FORMS.get(word, ("", ""))[1] in _LASTING


def verb_at(words: list[str]) -> int | None:
    """The place of the first verb after the first word: a plain form counts behind a plural, a noun before none."""
    for place in range(1, len(words)):
        if place == 1 and words[0].lower() in ARTICLES:
            continue  # a lost key
        following = words[place + 1] if place + 1 < len(words) else ""
        if words[place] in FORMS and (words[place] in AUXILIARIES or following not in (*FORMS, *_PLAIN)):
            return place
        if words[place] in _PLAIN and words[place - 1].endswith("s"):
            return place
    return None
