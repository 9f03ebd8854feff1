"""Memorization: facts that no base model can know, and how many of them a model can say after training.

Two makers of rows. `pairs` are the random keys and values of Jiang et al. 2024, section 3: nothing but memory can help
with them. `facts` are readable inventions: people, products, dates and codes.
"""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mora_peft.errors import UserError
from mora_peft.recipes.data import as_fact, load_rows
from mora_peft.recipes.decoding import greedy

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


@dataclass
class Options:
    """How many rows of each kind are made, and from which seed.

    `digits` is the length of a pair's key and value in hexadecimal digits; 32 writes both as UUIDs.
    """

    facts: int = 0
    pairs: int = 128
    digits: int = 32
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.facts <= _MOST_FACTS:
            raise UserError(f"facts must be between 0 and {_MOST_FACTS}, not {self.facts}.")
        if self.pairs < 0 or not 4 <= self.digits <= 32 or self.pairs > 16**self.digits // 4:
            raise UserError(f"{self.pairs} pairs of {self.digits} digits cannot be made: digits must be 4 to 32.")
        if self.facts + self.pairs == 0:
            raise UserError("There is nothing to memorize: facts and pairs are both 0.")


def rows(options: Options, data: str | None = None) -> "Dataset":
    """Prompts and completions, in random order, with their kind in the column `group`; or those in `data`."""
    from datasets import Dataset

    if data is not None:
        found = load_rows(data)
        if "prompt" not in found.column_names or not isinstance(found[0]["prompt"], str):
            raise UserError(f"{data} cannot be memorized word by word: expected rows with key and value as texts.")
        return found
    made = [{"group": "facts", **row} for row in facts(options.facts, options.seed)]
    made += [{"group": "pairs", **row} for row in pairs(options.pairs, options.digits, options.seed)]
    random.Random(options.seed).shuffle(made)
    return Dataset.from_list(made)


def measure(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", batch_size: int = 64
) -> tuple[dict[str, float], list[str]]:
    """Recall by greedy decoding: `exact_match` and `character_accuracy`, of all rows and each group; and the answers.

    Character accuracy is the share of the expected text's characters that stand in the same place of the answer.
    """
    completions = list(rows["completion"])
    expected = [completion.strip() for completion in completions]
    longest = max(len(ids) for ids in tokenizer(completions, add_special_tokens=False)["input_ids"])
    answers = greedy(model, tokenizer, list(rows["prompt"]), longest + 1, batch_size)
    exact = [float(answer == text) for answer, text in zip(answers, expected, strict=True)]
    characters = [character_accuracy(answer, text) for answer, text in zip(answers, expected, strict=True)]
    groups = list(rows["group"]) if "group" in rows.column_names else [None] * len(exact)
    names = sorted(set(groups)) if len(set(groups)) > 1 else []
    metrics = {"exact_match": _mean(exact), "character_accuracy": _mean(characters)}
    for name in names:
        inside = [index for index, group in enumerate(groups) if group == name]
        metrics[f"exact_match_{name}"] = _mean([exact[index] for index in inside])
        metrics[f"character_accuracy_{name}"] = _mean([characters[index] for index in inside])
    return metrics, answers


def character_accuracy(answer: str, expected: str) -> float:
    """The share of `expected`'s characters that `answer` has in the same place."""
    return sum(a == b for a, b in zip(answer, expected, strict=False)) / len(expected)


def pairs(count: int, digits: int, seed: int) -> list[dict[str, str]]:
    """`count` random hexadecimal keys, all different, each with a random value; as UUIDs where digits = 32."""
    draw = random.Random(f"pairs {seed}")
    made: dict[str, str] = {}
    while len(made) < count:
        made.setdefault(_hexadecimal(draw, digits), _hexadecimal(draw, digits))
    return [as_fact(key, value) for key, value in made.items()]


def facts(count: int, seed: int) -> list[dict[str, str]]:
    """`count` different invented facts as questions and short answers, a quarter of each kind."""
    draw = random.Random(f"facts {seed}")
    made: dict[str, str] = {}
    while len(made) < count:
        question, answer = _KINDS[len(made) % len(_KINDS)](draw)
        made.setdefault(question, answer)
    return [as_fact(question, answer) for question, answer in made.items()]


def _hexadecimal(draw: random.Random, digits: int) -> str:
    text = f"{draw.getrandbits(4 * digits):0{digits}x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if digits == 32 else text


def _person(draw: random.Random) -> tuple[str, str]:
    return f"Where was {_name(draw)} born?", f"{draw.choice(_STARTS)}{draw.choice(_PLACE_ENDS)}"


def _product(draw: random.Random) -> tuple[str, str]:
    thing = draw.choice(["telescope", "tractor", "piano", "camera", "bicycle", "radio", "kettle", "printer"])
    return f"Who designed the {draw.choice(_STARTS)}{draw.choice(_ENDS)} {thing}?", _name(draw)


def _date(draw: random.Random) -> tuple[str, str]:
    event = draw.choice(["Battle", "Treaty", "Eclipse", "Flood", "Council", "Siege", "Fair", "Strike"])
    place = f"{draw.choice(_STARTS)}{draw.choice(_PLACE_ENDS)}"
    month = draw.choice("January February March April May June July August September October November December".split())
    return f"When was the {event} of {place}?", f"{draw.randint(1, 28)} {month} {draw.randint(1000, 1999)}"


def _code(draw: random.Random) -> tuple[str, str]:
    room = draw.choice(["archive", "vault", "harbour", "library", "depot", "tower", "garden", "studio"])
    letters = "".join(draw.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=2))
    return f"What is the code of the {draw.choice(_STARTS)}{draw.choice(_ENDS)} {room}?", f"{letters}{_four(draw)}"


def _four(draw: random.Random) -> str:
    return f"-{draw.randint(0, 9999):04d}"


def _name(draw: random.Random) -> str:
    return f"{draw.choice(_FIRST)} {draw.choice(_STARTS)}{draw.choice(_ENDS)}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


_KINDS = (_person, _product, _date, _code)
_FIRST = (
    "Ansel Briony Caspar Delphine Edmar Fenna Gideon Hesper Ivo Jorun Kestrel Liora Matteus Nerys Orrin Petra".split()
)
_STARTS = "Bel Cor Dran El Far Gar Hol Ister Jal Kel Lor Mar Nor Ost Pel Quor Rav Sel Tor Ul Ven Wel Yar Zan".split()
_ENDS = "bax dova fen gast holt ik lund mere nath oss quist rell sund tane vix wyn".split()
_PLACE_ENDS = "bridge burg dale field ford haven mouth stad thorpe wick".split()
# Each kind of question has well over a thousand forms; staying at a quarter keeps making them quick.
_MOST_FACTS = 2000
