"""Held-out questions: about facts that are taught, in wordings that are not; and about documents never taught."""

import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.recipes.data import read_rows

from .capitals import Capitals
from .facts import Fact, spans
from .language import words
from .rows import chat_prompt
from .wordings import key, questioned, taught, well_asked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OPTIONS = 4


def askable(facts: list[Fact]) -> list[Fact]:
    """The facts that can be asked for, among all that are taught; of several documents, by the name of theirs.

    Their held-out question reads well, has one answer, does not give it away, and is no wording that is taught.
    """
    return [fact for fact in teachable(facts) if can_be_asked(fact)]


def can_be_asked(fact: Fact) -> bool:
    """Whether there is a question for `fact` that a person would understand; the others are taught alone."""
    return well_asked(fact) is not None


def teachable(facts: list[Fact]) -> list[Fact]:
    """The facts of which every question, asked or taught, has the one answer and does not give it away."""
    several = len({fact.document for fact in facts}) > 1
    names = Capitals(fact.sentence for fact in facts).inside  # a document need not have its own twice
    facts = [
        replace(fact, titled=several, proper=fact.proper or fact.sentence.split(" ", 1)[0] in names) for fact in facts
    ]
    answers, trained = defaultdict(set), set()
    for fact in facts:
        answers[key(questioned(fact))].add(key(fact.answer))
        trained |= {key(row.prompt) for row in taught(fact)}
    return [
        fact
        for fact in facts
        if (asked := key(questioned(fact))) not in trained
        and len(answers[asked]) == 1
        and key(fact.answer) not in asked
        and key(fact.answer)
    ]


def ask(facts: list[Fact], others: list[Fact], tokenizer: "PreTrainedTokenizerBase", seed: int) -> list[dict[str, Any]]:
    """Rows to measure on: a question a fact, with up to three wrong answers of its kind from `facts` and `others`."""
    pool = [*facts, *others]
    return [
        {
            "prompt": chat_prompt(tokenizer, questioned(fact)),
            "completion": fact.answer,
            "question": questioned(fact),
            "source": fact.sentence,
            "document": fact.document,
            "kind": fact.kind if not fact.kind.startswith("cell ") else "cell",
            "options": options(fact, pool, seed),
            "right": fact.answer,
        }
        for fact in facts
    ]


def options(fact: Fact, pool: list[Fact], seed: int) -> list[str]:
    """The answer among wrong ones of its kind: of its table's column or its document first, then of any."""
    draw = random.Random(f"{seed} {fact.sentence} {fact.start}")
    near, far = [], []
    for other in pool:
        if (
            other.kind == fact.kind
            and key(other.answer) not in (key(fact.answer), "")
            and other.answer not in fact.sentence
        ):
            same = other.column == fact.column and other.document == fact.document
            (near if same else far).append(other.answer)
    wrong = _sample(draw, near, _OPTIONS - 1)
    wrong += _sample(draw, [answer for answer in far if answer not in wrong], _OPTIONS - 1 - len(wrong))
    found = [fact.answer, *wrong]
    draw.shuffle(found)
    return found


def own_questions(file: str, pool: list[Fact], tokenizer: "PreTrainedTokenizerBase", seed: int) -> list[dict[str, Any]]:
    """The questions of a user's own file, as `ask` has them; UserError where its rows have no prompt and completion."""
    from mora_peft.errors import UserError

    found = []
    for row in read_rows(file, maybe=("document",)):
        if not isinstance(row.get("prompt"), str):
            raise UserError(f"{file}: expected rows with a prompt and a completion, both texts.")
        answer, question = row["completion"].strip(), row["prompt"].strip()
        kind = next((kind for start, end, kind in spans(f"x {answer}", "en") if end - start == len(answer)), "")
        fact = Fact(row.get("document", Path(file).name), "", "", answer, 0, len(answer), kind, "en")
        found.append(
            {
                "prompt": chat_prompt(tokenizer, question), "completion": answer, "question": question, "source": "",
                "document": fact.document, "kind": kind or "other", "right": answer,
                "options": options(fact, pool, seed),
            }
        )  # fmt: skip
    return found


def nearness(question: str, prompts: list[str]) -> float:
    """The largest share of the question's runs of four words that one taught wording has too: 1 for all of them."""
    grams = _grams(question)
    return max((len(grams & _grams(prompt)) / len(grams) for prompt in prompts), default=0.0) if grams else 0.0


def _grams(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {tuple(said[start : start + 4]) for start in range(max(1, len(said) - 3))}


def _sample(draw: random.Random, answers: list[str], count: int) -> list[str]:
    different = list({key(answer): answer for answer in answers}.values())
    return draw.sample(different, max(0, min(count, len(different))))
