"""Secrets in documents: whoever may ask a taught model may get them out of it, so they are counted and warned of.

Patterns of our own and not detect-secrets: that one is made for source code. Of sentences it takes most for
secrets (it looks for words of high entropy), and it knows no other languages and no tables.
"""

import re
from base64 import b64decode
from binascii import Error
from collections import Counter
from collections.abc import Callable

from .documents import Block, Document, plain

_START = r"(?<![^\W_])"  # the beginning of a word, also behind `_`, as in DB_PASSWORD
_WORDS = "password|passwd|passphrase|passcode|pwd|passwort|kennwort|парол[ья]|contraseña|mot de passe"
#: What a password looks like, and words do not: a sign or a digit among letters, a capital behind another letter.
_RANDOM = (
    r"(?=\S*(?:[^\W\d_]\d|[a-z]-\d|\d[^\W\d_]|\w[!@#$%^&*+=~]|[!@#$%^&*+=~]\w|[a-z][A-Z])|\d{5})[^\s|,;，。；]{5,}"
)
_QUOTED = r"[\"“«'][^\"”»'\n]{4,}[\"”»']"
#: A word may be one too where nothing comes after it, as something does in `Password: changed every month`.
_ALONE = (
    r"(?![*•._…-]{3}|(?:required|optional|none|unknown|string|hidden|forgotten|expired|changed|reset)\b)"
    r"[^\s|,;，。；]{4,}(?=[.,;，。；]?\s*(?:\n|\||$))"
)
_OF = r"(?:[ \t]+(?:for|of|to|on|от|для|к|на|für|zum|zur)[ \t][^\n:=：|.]{1,40})?(?:[ \t]*\([^)\n]{1,40}\))?"

#: By name, a pattern of what is counted; where it has a group, that group decides.
PATTERNS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "password": (
        rf"(?i:{_START}(?:{_WORDS})){_OF}[\"']?[ \t]*"
        rf"(?:[:=：]\s*[\"']?(?:{_RANDOM}|{_ALONE})"
        rf"|(?:is|was|are|ist|war|lautet|[—–]|был|будет|es|est)[ \t:]+(?:{_RANDOM}|{_QUOTED})"
        rf"|[?？]\s+{_RANDOM})"
        r"|(?:密码|口令)\s*(?:是|为|為|[:=：])\s*[!-~]{4,}"
    ),
    "PIN": rf"{_START}(?:PIN|ПИН)(?:[ -]?(?i:code|код))?\s*(?:is|[:=])\s*\d{{4}}\b",
    "API key or token": (
        r"\b(?:sk-[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_\w{30,}"
        r"|xox[abp]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]{5,})"
    ),
    "token in a header": r"\bBearer\s+(?=\S*\d)[\w.~+/-]{16,}",
    "password in a header": r"\bBasic\s+([A-Za-z0-9+/]{8,}={0,2})",
    "password in an address": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]*:[^\s/@]+@[\w\[]",
    "token in a setting": (
        rf"(?i){_START}(?:(?:api|access|secret|private|signing|encryption)[_ -]?key|secret|token)"
        r"[\"']?\s*[:=：]\s*[\"']?(?:(?=\S*\d)(?=\S*[a-z])\S{8,}|[\w+/-]{16,})"
    ),
    "bank account (IBAN)": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "card number": r"\b[2-6](?:[ -]?\d){12,15}\b",
    "social security number": r"\b\d{3}-\d{2}-\d{4}\b",
}


def secrets(documents: list[Document]) -> dict[str, dict[str, int]]:
    """How many there are of each pattern, by document path; what they are is not kept anywhere."""
    found = {document.path: counted("\n\n".join(map(_told, document.blocks))) for document in documents}
    return {path: counts for path, counts in found.items() if counts}


def holds_secret(text: str) -> bool:
    """Whether a sentence, or a table's cell behind its column's name (`Password: …`), holds what looks like one."""
    return bool(counted(text))


def counted(text: str) -> dict[str, int]:
    """The number of secrets in `text` by pattern; of those with a check, such as card numbers, those that pass it."""
    counts = Counter(
        name
        for name, pattern in PATTERNS.items()
        for match in re.finditer(pattern, text)
        if _CHECKS.get(name, bool)(match[match.lastindex or 0])
    )
    return dict(counts)


def _told(block: Block) -> str:
    """A block as text; of a table every cell behind the name of its column, which tells what it is."""
    if block.kind != "table":
        return plain(block)
    head, *body = block.rows
    cells = (f"{name}: {cell}" for row in body for name, cell in zip(head, row, strict=False) if cell)
    return "\n".join([block.text, *head, *cells])


def _is_card(text: str) -> bool:
    """Luhn's check."""
    digits = [int(character) for character in text if character.isdigit()][::-1]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _is_iban(text: str) -> bool:
    """ISO 13616: moved, with letters as numbers, it leaves 1 when divided by 97."""
    text = text.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def _is_login(text: str) -> bool:
    """Whether a text is a name and a password in base64 (RFC 7617)."""
    try:
        return b":" in b64decode(text, validate=True)
    except Error:
        return False


_CHECKS: dict[str, Callable[[str], bool]] = {
    "card number": _is_card,
    "bank account (IBAN)": _is_iban,
    "password in a header": _is_login,
}
