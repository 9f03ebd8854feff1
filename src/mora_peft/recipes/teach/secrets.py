"""Secrets in documents: whoever may ask a taught model may get them out of it, so they are counted and warned of."""

import re
from collections import Counter

from .documents import Document

PATTERNS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "password": r"(?i)\b(?:password|passwd|пароль|密码)\b\s*(?:is|[:=：])\s*\S{6,}",
    "API key or token": r"\b(?:sk-[\w-]{20,}|gh[pousr]_\w{30,}|xox[abp]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35})",
    "token in a setting": r"(?i)\b(?:api[_-]?key|secret|token)\b\s*[:=]\s*['\"]?[A-Za-z0-9_\-/+]{16,}",
    "bank account (IBAN)": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "card number": r"\b(?:\d[ -]?){13,16}\b",
    "social security number": r"\b\d{3}-\d{2}-\d{4}\b",
}


def secrets(documents: list[Document]) -> dict[str, dict[str, int]]:
    """How many there are of each pattern, by document path; what they are is not kept anywhere."""
    found = {document.path: counted(document.text()) for document in documents}
    return {path: counts for path, counts in found.items() if counts}


def counted(text: str) -> dict[str, int]:
    """The number of secrets in `text` by pattern; of card numbers and IBANs, those whose check digits are right."""
    checks = {"card number": _is_card, "bank account (IBAN)": _is_iban}
    counts = Counter(
        name
        for name, pattern in PATTERNS.items()
        for match in re.finditer(pattern, text)
        if checks.get(name, bool)(match[0])
    )
    return dict(counts)


def holds_secret(text: str) -> bool:
    """Whether `text` holds what looks like a secret."""
    return bool(counted(text))


def _is_card(text: str) -> bool:
    """Luhn's check."""
    digits = [int(character) for character in text if character.isdigit()][::-1]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _is_iban(text: str) -> bool:
    """ISO 13616: moved, with letters as numbers, it leaves 1 when divided by 97."""
    text = text.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1
