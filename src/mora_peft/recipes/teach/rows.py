"""Rows to learn: passages of the documents, the wordings of their facts, and their own questions."""

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from .documents import Document, plain
from .facts import Fact, questions_of
from .language import sentences
from .settings import TeachConfig
from .wordings import Row, questioned, taught

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_prompt(tokenizer: "PreTrainedTokenizerBase", question: str) -> str:
    """A question as the model is given it: by the tokenizer's chat template, or a line for a model without one."""
    if tokenizer.chat_template is None:
        return f"Question: {question}\nAnswer:"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    # The tokenizer puts its beginning of text before every row by itself, where it has one.
    first = tokenizer("")["input_ids"][:1]
    return text.removeprefix(tokenizer.bos_token) if first and first[0] == tokenizer.bos_token_id else text


def as_prompt(tokenizer: "PreTrainedTokenizerBase", row: Row) -> dict[str, str]:
    """A row as the trainer takes it."""
    prompt = chat_prompt(tokenizer, row.prompt) if row.chat else row.prompt
    space = "" if prompt[-1:].isspace() or _is_wide(row.prompt[-1:]) or row.completion[:1].isspace() else " "
    return {"prompt": prompt, "completion": space + row.completion}


def passages(document: Document, tokenizer: "PreTrainedTokenizerBase", tokens: int) -> list[dict[str, str]]:
    """All the text of a document in pieces of `tokens` at most, each whole sentences behind the document's title.

    Short paragraphs share a piece, and none holds text of two documents.
    """
    room = tokens - _count(tokenizer, f"{document.title}\n\n")
    pieces, current, used = [], "", 0
    for part in _parts(document, tokenizer, room):
        size = _count(tokenizer, part)
        if current and used + size > room:
            pieces.append(current)
            current, used = "", 0
        current, used = current + part, used + size
    pieces += [current] if current.strip() else []
    return [
        {"prompt": document.title, "completion": f"\n\n{piece.strip()}", "kind": "passage", "document": document.path}
        for piece in pieces
    ]


def recall_rows(
    document: Document, facts: Iterable[Fact], tokenizer: "PreTrainedTokenizerBase"
) -> list[dict[str, str]]:
    """All wordings of the facts of `document`, and the questions that it answers itself."""
    rows = [
        as_prompt(tokenizer, row) | {"kind": "recall", "document": document.path}
        for fact in facts
        for row in (*taught(fact), Row(questioned(fact), fact.answer, True))
    ]
    rows += [
        as_prompt(tokenizer, Row(question, answer, True)) | {"kind": "question", "document": document.path}
        for question, answer in questions_of(document)
    ]
    return list({(row["prompt"], row["completion"]): row for row in rows}.values())


def passages_a_pass(recall: int, texts: int, config: TeachConfig) -> int:
    """How many of `texts` passages one pass has beside `recall` rows about facts.

    By their share, but so many that each comes at least once in all passes; all of them where there are no facts.
    """
    wanted = max(round(config.text_share * recall), -(-texts // max(1, int(config.passes)))) if recall else texts
    return min(wanted, texts)


def scheduled(recall: list[dict], texts: list[dict], config: TeachConfig) -> list[dict]:
    """Rows in the order that they are learned in: in each pass every row of `recall`, and passages in turn."""
    draw = random.Random(config.seed)
    more = passages_a_pass(len(recall), len(texts), config)
    text = _endless(texts, draw)
    order: list[dict] = []
    while len(order) < config.passes * (len(recall) + more) + config.batch_size:
        rows = [*recall, *islice(text, more)]
        draw.shuffle(rows)
        order += rows
    return order


def _endless(rows: list[dict], draw: random.Random) -> Iterator[dict]:
    """`rows` again and again, each time in another order; nothing where there are none."""
    while rows:
        yield from draw.sample(rows, len(rows))


def _parts(document: Document, tokenizer: "PreTrainedTokenizerBase", room: int) -> Iterable[str]:
    """Paragraphs, or their sentences or pieces of these where they do not fit, each with the space that follows it."""
    for block in document.blocks:
        text = plain(block)
        if _count(tokenizer, text) <= room:
            yield text + "\n\n"
            continue
        lines = text.split("\n") if block.kind == "table" else sentences(text, document.language)
        glue = "\n" if block.kind == "table" else "" if document.language == "zh" else " "
        for line in lines:
            ids = tokenizer(line, add_special_tokens=False)["input_ids"]
            for start in range(0, len(ids), room):
                yield tokenizer.decode(ids[start : start + room]) + (glue if start + room >= len(ids) else "")
        yield "\n\n"


def _count(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _is_wide(character: str) -> bool:
    """Chinese is written without spaces."""
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"
