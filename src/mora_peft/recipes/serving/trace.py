"""A made stream of requests, in the manner of the S-LoRA paper: who is asked, when, and how much.

The laws are those of Sheng et al. 2023 (arXiv 2311.03285, section 7) and of the code that came with it. All of a trace
hangs on its seed, and its parts are drawn apart: the same seed gives the same arrivals and lengths for any number of
adapters, so that two traces differ in the adapters alone.
"""

import random
from dataclasses import dataclass

#: Common short words, each a token or two in any vocabulary of text.
WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face level office door health person art war history party result change morning reason research girl "
    "guy moment air teacher force education foot boy age policy music market sense nation plan college interest death"
).split()


@dataclass(frozen=True)
class Laws:
    """What a trace is drawn from.

    `requests` arrive with gaps of mean 1 / `rate` seconds from a gamma distribution with the coefficient of variation
    `cv` (1: a Poisson process; larger: in bursts; 0: evenly). A request's adapter is among the first share s of them
    with probability s^`alpha` (1: all alike; smaller: the first ones are favoured). Lengths are uniform, both ends
    included.
    """

    requests: int
    rate: float
    cv: float
    alpha: float
    input_range: tuple[int, int]
    output_range: tuple[int, int]


@dataclass(frozen=True)
class Request:
    """One request: seconds from the start, the adapter's place in the list, words of the prompt, tokens to write."""

    at: float
    adapter: int
    prompt: str
    output_tokens: int


def draw_trace(laws: Laws, adapters: int, seed: int) -> list[Request]:
    """The requests of a trace over `adapters` many adapters, in the order of their arrival."""
    gaps, who, lengths, words = (random.Random(f"{part} {seed}") for part in ("arrivals", "who", "lengths", "words"))
    requests, now = [], 0.0
    for _ in range(laws.requests):
        now += _gap(gaps, laws)
        place = min(int(adapters * who.random() ** (1 / laws.alpha)), adapters - 1)
        prompt = " ".join(words.choices(WORDS, k=lengths.randint(*laws.input_range)))
        requests.append(Request(now, place, prompt, lengths.randint(*laws.output_range)))
    return requests


def _gap(draw: random.Random, laws: Laws) -> float:
    if laws.cv == 0:
        return 1 / laws.rate
    return draw.gammavariate(1 / laws.cv**2, laws.cv**2 / laws.rate)
