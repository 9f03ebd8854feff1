"""Questions that a text answers itself, marked `Q:` and `A:` or the like: the same in every format."""

import re

from mora_peft.recipes.teach.documents import Block

_MARK = r"(?:{})\s*\d*\s*(?:[:：]|(?<=[QA])\.)"
_ASKS = _MARK.format(r"Q|(?i:question)|(?i:frage)|В|(?i:вопрос)|问|问题|問")
_ANSWERS = _MARK.format(r"A|(?i:answer)|(?i:antwort)|О|(?i:ответ)|答|回答")
_ASKED = re.compile(rf"{_ASKS}\s*(?P<said>.+)", re.DOTALL)
_ANSWERED = re.compile(rf"{_ANSWERS}\s*(?P<said>.+)", re.DOTALL)
_ANSWERED_AT_ONCE = re.compile(rf"(?<=[?？])\s*(?={_ANSWERS})")


def begins(line: str, before: list[str]) -> bool:
    """Whether a line begins a question, or the answer to the one that the lines `before` are.

    An answer's mark alone does not count: a line may begin with `A. Smith`.
    """
    return bool(_ASKED.match(line) or (before and _ASKED.match(before[0]) and _ANSWERED.match(line)))


def asks(text: str) -> bool:
    """Whether a text is a question."""
    return text.rstrip().endswith(("?", "？")) or bool(_ASKED.match(text))


def pieces(text: str) -> list[str]:
    """A paragraph with its line breaks, parted before every question and every answer."""
    found: list[list[str]] = [[]]
    for line in map(str.strip, re.split(r"[\n\v]", text)):
        for part in _ANSWERED_AT_ONCE.split(line, maxsplit=1) if _ASKED.match(line) else [line]:
            if found[-1] and begins(part, found[-1]):
                found.append([])
            found[-1].append(part)
    return ["\n".join(lines) for lines in found]


def question(asked: str, answer: str) -> Block:
    """A question as a block with its answer, both without their marks."""
    asked, answer = (
        found["said"] if (found := pattern.fullmatch(text)) else text
        for pattern, text in ((_ASKED, asked), (_ANSWERED, answer))
    )
    return Block("question", asked, rows=((answer,),))


def paired(blocks: list[Block]) -> list[Block]:
    """`blocks` with each marked question and the marked answer right after it as one; others stay as they are."""
    found: list[Block] = []
    for block in blocks:
        texts = [each for each in (*found[-1:], block) if each.kind in ("heading", "text")]
        if len(texts) == 2 and _ASKED.fullmatch(texts[0].text) and _ANSWERED.fullmatch(block.text):
            found[-1] = question(texts[0].text, block.text)
        else:
            found.append(block)
    return found
