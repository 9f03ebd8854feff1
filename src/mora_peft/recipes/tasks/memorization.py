"""Memorization: facts that no base model can know, and how many of them a model can say after training.

Two makers of rows. `pairs` are the random keys and values of Jiang et al. 2024, section 3: nothing but memory can help
with them. `facts` are readable inventions: people, products, dates and codes.
"""

import random
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mora_peft.errors import UserError
from mora_peft.recipes.data import as_fact, load_rows
from mora_peft.recipes.measures.bits import stored_bits
from mora_peft.recipes.measures.recall import recall

from . import Test, nothing

if TYPE_CHECKING:
    from datasets import Dataset

METRIC = "exact_match"


@dataclass
class Options:
    """How many rows of each kind are made, and from which seed.

    `digits` is the length of a pair's key and value in hexadecimal digits; 32 writes both as UUIDs. With `bits` it is
    also measured how many bits of the pairs' values are stored, at the cost of a pass over all pairs.
    """

    facts: int = 0
    pairs: int = 128
    digits: int = 32
    seed: int = 0
    bits: bool = False

    def __post_init__(self):
        if not 0 <= self.facts <= _MOST_FACTS:
            raise UserError(f"facts must be between 0 and {_MOST_FACTS}, not {self.facts}.")
        if self.pairs < 0 or not 4 <= self.digits <= 32 or self.pairs > 16**self.digits // 4:
            raise UserError(f"{self.pairs} pairs of {self.digits} digits cannot be made: digits must be 4 to 32.")
        if self.facts + self.pairs == 0:
            raise UserError("There is nothing to memorize: facts and pairs are both 0.")


def rows(options: Options, data: str | None = None) -> "Dataset":
    """Prompts and completions, in random order, with their kind in the column `group`; or those in `data`."""
    return make(options) if data is None else load_facts(data)


def make(options: Options) -> "Dataset":
    """The facts and pairs that `options` ask for, mixed."""
    from datasets import Dataset

    made = [{"group": "facts", **row} for row in facts(options.facts, options.seed)]
    made += [{"group": "pairs", **row} for row in pairs(options.pairs, options.digits, options.seed)]
    random.Random(options.seed).shuffle(made)
    return Dataset.from_list(made)


def load_facts(data: str) -> "Dataset":
    """The rows of `data`; UserError where they are no texts to complete."""
    found = load_rows(data)
    if "prompt" not in found.column_names or not isinstance(found[0]["prompt"], str):
        raise UserError(f"{data} cannot be memorized word by word: expected rows with key and value as texts.")
    return found


def tests(options: Options, rows: "Dataset | None" = None, eval_data: str | None = None) -> list[Test]:
    """Recall of the rows that were learned, since nobody can know others; and the bits stored of the pairs."""
    learned = make(options) if rows is None else rows
    found = [Test("", load_facts(eval_data) if eval_data else learned, recall)]
    if options.bits:
        if "group" not in learned.column_names or options.pairs == 0:
            raise UserError("bits can be measured of made pairs alone: leave out data, and ask for pairs.")
        random_rows = learned.filter(lambda group: group == "pairs", input_columns="group")
        found.append(Test("", random_rows, partial(stored_bits, bits_a_row=4 * options.digits), whole=True))
    return found


def tuning(options: Options, rows: "Dataset") -> tuple["Dataset", list[Test]]:
    """As many rows of another seed, to learn and to measure; as many invented facts for rows that were given."""
    if "group" in rows.column_names:
        other = replace(options, seed=options.seed + _OTHER_SEED)
    else:
        other = Options(facts=min(len(rows), _MOST_FACTS), pairs=0, seed=options.seed + _OTHER_SEED)
    made = make(other)
    return made, [Test("", made, nothing)]


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


_KINDS = (_person, _product, _date, _code)
_FIRST = (
    "Ansel Briony Caspar Delphine Edmar Fenna Gideon Hesper Ivo Jorun Kestrel Liora Matteus Nerys Orrin Petra".split()
)
_STARTS = "Bel Cor Dran El Far Gar Hol Ister Jal Kel Lor Mar Nor Ost Pel Quor Rav Sel Tor Ul Ven Wel Yar Zan".split()
_ENDS = "bax dova fen gast holt ik lund mere nath oss quist rell sund tane vix wyn".split()
_PLACE_ENDS = "bridge burg dale field ford haven mouth stad thorpe wick".split()
# Each kind of question has well over a thousand forms; staying at a quarter keeps making them quick.
_MOST_FACTS = 2000
_OTHER_SEED = 1_000_003  # far from the seeds that people choose
