"""The language of a text by its script, and its sentences."""

import re

#: Languages whose facts and wordings are known; all others in Latin letters are treated as English is.
KNOWN = {"en": "English", "ru": "Russian", "zh": "Chinese"}


def language_of(text: str) -> str:
    """`ru` for mostly Cyrillic, `zh` for Chinese, `en` for Latin letters, `other` for all other scripts."""
    counts = {
        "ru": len(re.findall(r"[а-яёА-ЯЁ]", text)),
        "zh": 3 * len(re.findall(r"[\u4e00-\u9fff]", text)),  # a character says as much as several letters
        "en": len(re.findall(r"[A-Za-zÀ-ÿ]", text)),
    }
    counts["other"] = sum(map(str.isalpha, text)) - sum((counts["ru"], counts["zh"] // 3, counts["en"]))
    return max(counts, key=counts.__getitem__) if any(counts.values()) else "en"


def words(text: str) -> list[str]:
    """The words of a text in lower case; of Chinese, characters."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text.lower())


def sentences(text: str, language: str) -> list[str]:
    """The sentences of a paragraph, by the rules that Wikimedia's sentencex has for the language."""
    from sentencex import segment

    found = [part.strip() for part in segment(language if language in KNOWN else "en", text)]
    return [part for part in found if part]
