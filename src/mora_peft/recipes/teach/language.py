"""The language of a text by its script, and its sentences."""

import re

#: Languages whose facts and wordings are known; of all others, numbers and dates alone are asked for.
KNOWN = {"en": "English", "ru": "Russian", "zh": "Chinese"}

_ENGLISH = frozenset("the of and to in is are was were for that with on by".split())
#: The commonest words of languages in Latin letters that no English text has.
_FOREIGN = frozenset(
    "der die das und ist nicht ein eine mit von zu den dem auf le la les et est une des du dans pour que el los las y "
    "es una por con del il di che per non della het een van niet je nie jest się na w z og det som att är och".split()
)


def language_of(text: str) -> str:
    """`ru` for mostly Cyrillic, `zh` for Chinese, `en` for Latin letters, `other` for all other scripts and languages.

    >>> language_of("The kettle costs 9 euros."), language_of("Der Kessel ist in der Stadt und kostet 9 Euro.")
    ('en', 'other')
    """
    counts = {
        "ru": len(re.findall(r"[а-яёА-ЯЁ]", text)),
        "zh": 3 * len(re.findall(r"[\u4e00-\u9fff]", text)),  # a character says as much as several letters
        "en": len(re.findall(r"[A-Za-zÀ-ÿ]", text)),
    }
    counts["other"] = sum(map(str.isalpha, text)) - sum((counts["ru"], counts["zh"] // 3, counts["en"]))
    found = max(counts, key=counts.__getitem__) if any(counts.values()) else "en"
    if found != "en":
        return found
    said = text.lower().split()
    foreign = sum(word in _FOREIGN for word in said)
    return "other" if foreign > 2 and foreign > sum(word in _ENGLISH for word in said) else "en"


def words(text: str) -> list[str]:
    """The words of a text in lower case; of Chinese, characters."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text.lower())


def sentences(text: str, language: str) -> list[str]:
    """The sentences of a paragraph, by the rules that Wikimedia's sentencex has for the language."""
    from sentencex import segment

    found = [part.strip() for part in segment(language if language in KNOWN else "en", text)]
    return [part for part in found if part]
