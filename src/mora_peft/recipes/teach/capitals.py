"""Whether a sentence's first word is a name, which keeps its capital where a question puts it elsewhere."""

import re
from collections import Counter
from collections.abc import Iterable

from .verbs import is_finite

_WORD = re.compile(r"(?<![\w@./-])(?P<word>[^\W\d_][\w’'-]*)(?![@/]|\.\w)(?= (?P<next>\w+))?")
_NEVER = frozenset("the a an our all every each no most many some in on at for to both any".split())


class Capitals:
    """The words of a document that it writes with a capital in mid-sentence, or again and again and never without.

    >>> names = Capitals(["Tolva sells soup. Soup is made by Tolva.", "Patients were asked. Lunch lasts an hour."])
    >>> [names.are_kept(said) for said in ("Tolva was founded.", "Soup costs 2 euros.", "Lunch is free.")]
    [True, False, False]
    >>> names.are_kept("Ada Orme leads it."), names.are_kept("The Harwick holds 2 litres.")
    (True, False)
    """

    def __init__(self, texts: Iterable[str]):
        inside: Counter[str] = Counter()
        first: Counter[str] = Counter()
        small = set()
        for text in texts:
            for match in _WORD.finditer(text):
                word = re.sub(r"['’]s$", "", match["word"])
                if word[0].islower():
                    small.add(word)
                elif re.match(r"[\w,;’'] ", text[max(0, match.start() - 2) : match.start()]):
                    inside[word] += 1
                elif is_finite(match["next"] or ""):
                    first[word] += 1
        again = {word for word, count in first.items() if count > 1 and word.lower() not in small and word[-1] != "s"}
        # One that is also written small is a name in names alone, such as the press in the Press Club.
        self.inside = {word for word in inside if word.lower() not in small}
        self.kept = self.inside | again

    def are_kept(self, sentence: str) -> bool:
        """Whether the first word of `sentence` is a name, or the first of one."""
        first, _, rest = sentence.partition(" ")
        if first.lower() in _NEVER:
            return False
        first = re.sub(r"['’]s?$", "", first)
        return rest[:1].isupper() or first in self.kept or first[1:] != first[1:].lower() or first[:1].isdigit()
