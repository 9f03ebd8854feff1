"""Measure a server that has many adapters: a made trace, sent as it comes, and what was seen."""

import asyncio
import math
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mora_peft.errors import UserError
from mora_peft.recipes import provenance
from mora_peft.recipes.files import write_json

from .client import Outcome, Server, models, replay, warm_up
from .folder import adapters_in
from .trace import Laws, Request, draw_trace


@dataclass
class BenchServeConfig:
    """Measure a server of OpenAI's completions API under the workload of the S-LoRA paper (arXiv 2311.03285).

    Args:
        url: Address of the server.
        output: JSON file to write the measurements to.
        adapters: Folder whose adapters are asked for by name; without it the adapters that the server lists, or its
            models where it lists no adapters.
        count: Ask for the first so many adapters only; 0 asks for the base model.
        rate: Requests a second.
        duration: Seconds over which requests arrive; there are rate times duration of them.
        cv: Coefficient of variation of the gaps between arrivals: 1 is a Poisson process, more comes in bursts.
        alpha: Exponent of the adapters' popularity: at 1 all are alike, below it the first ones are favoured.
        input_range: Shortest and longest prompt, in words of about one token.
        output_range: Fewest and most tokens to write.
        slo: Seconds within which a first token should come.
        concurrency: Requests open at once at most; those that wait are timed as they wait.
        warmup: Ask every adapter for one token before the clock starts, so that each has been loaded once.
        ignore_eos: Have answers be as long as the trace says; a field of vLLM's and SGLang's, which others may refuse.
        api_key: Key of the server; without it OPENAI_API_KEY or VLLM_API_KEY.
        timeout: Seconds after which a request counts as failed.
        seed: Seed of the trace.
        details: Write every request's times, too.
    """

    url: str = "http://127.0.0.1:8000"
    output: str = "bench-serve.json"
    adapters: str | None = None
    count: int | None = None
    rate: float = 2.0
    duration: float = 60.0
    cv: float = 1.0
    alpha: float = 1.0
    input_range: tuple[int, int] = (8, 512)
    output_range: tuple[int, int] = (8, 512)
    slo: float = 6.0
    concurrency: int | None = None
    warmup: bool = False
    ignore_eos: bool = True
    api_key: str | None = None
    timeout: float = 600.0
    seed: int = 0
    details: bool = False

    def __post_init__(self):
        for name in ("rate", "duration", "alpha", "slo", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be above 0, not {getattr(self, name)}.")
        if not 0 <= self.cv < math.inf:
            raise UserError(f"cv must be 0 or more, not {self.cv}.")
        if self.concurrency is not None and self.concurrency < 1:
            raise UserError(f"concurrency must be at least 1, not {self.concurrency}.")
        if self.count is not None and self.count < 0:
            raise UserError(f"count must be 0 or more, not {self.count}.")
        for name in ("input_range", "output_range"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise UserError(f"{name} must be two numbers from 1 on, the smaller first, not {low} and {high}.")

    @property
    def laws(self) -> Laws:
        """What the trace is drawn from."""
        requests = max(1, int(self.rate * self.duration))
        return Laws(requests, self.rate, self.cv, self.alpha, self.input_range, self.output_range)


def bench_serve(config: BenchServeConfig) -> Path:
    """Send the trace, print what was seen, and write it to `output`.

    Raises UserError where there is no server, where it has none of the adapters, or where no request was answered.
    """
    server = Server(
        config.url,
        config.api_key or os.environ.get("OPENAI_API_KEY") or os.environ.get("VLLM_API_KEY"),
        config.timeout,
        config.concurrency,
        {"ignore_eos": True} if config.ignore_eos else None,
    )
    trace, names, outcomes = asyncio.run(_measure(config, server))
    results = summary(outcomes, trace, config.slo)
    record: dict[str, Any] = {
        "schema": 1,
        "config": {name: value for name, value in asdict(config).items() if name != "api_key"},
        "adapters": len(names),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "device": provenance.device(),
        "results": results,
    }
    if config.details:
        record["requests"] = [
            {"at": request.at, "model": names[request.adapter], **asdict(outcome)}
            for request, outcome in zip(trace, outcomes, strict=True)
        ]
    path = write_json(Path(config.output), record)
    print("\n".join(told(results)))
    print(f"Written to {path}")
    if not results["completed"]:
        [(error, _)] = Counter(results["errors"]).most_common(1)
        raise UserError(f"Not one of {len(trace)} requests was answered; most often: {error}")
    return path


async def _measure(config: BenchServeConfig, server: Server) -> tuple[list[Request], list[str], list[Outcome]]:
    names = await _names(config, server)
    trace = draw_trace(config.laws, len(names), config.seed)
    print(f"{len(trace):,} requests to {len(names):,} models over {trace[-1].at:.0f} s", flush=True)
    if config.warmup:
        asked = await warm_up(server, names)
        if lost := [outcome.error for outcome in asked if outcome.error]:
            raise UserError(f"{len(lost)} of {len(names)} models did not answer before the start; the first: {lost[0]}")
    return trace, names, await replay(server, trace, names)


async def _names(config: BenchServeConfig, server: Server) -> list[str]:
    """The models to ask for, as many as wanted."""
    listed = await models(server)
    bases = [model["id"] for model in listed if not model.get("parent")]
    if config.count == 0:
        return bases[:1]
    if config.adapters is not None:
        names = sorted(adapters_in(Path(config.adapters)))
    else:
        names = [model["id"] for model in listed if model.get("parent")] or bases
    wanted = config.count or len(names)
    if not names or wanted > len(names):
        where = config.adapters or config.url
        raise UserError(
            f"{where} has {len(names)} adapters, but {wanted or 'some'} are needed: add some, or lower --count."
        )
    return names[:wanted]


def summary(outcomes: list[Outcome], trace: list[Request], slo: float) -> dict[str, Any]:
    """Throughput, times and failures; a request that failed has not met its objective.

    Times are in seconds from when a request was due; throughput is over the time from the start of the trace to the
    last token, and counts what was answered.
    """
    done = [outcome for outcome in outcomes if outcome.error is None]
    seconds = max((request.at + o.last for request, o in zip(trace, outcomes, strict=True) if o.last), default=0.0)
    per_second = (lambda amount: amount / seconds) if seconds else (lambda amount: 0.0)
    return {
        "requests": len(outcomes),
        "completed": len(done),
        "failed": len(outcomes) - len(done),
        "errors": dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
        "adapters_asked": len({request.adapter for request in trace}),
        "seconds": seconds,
        "requests_per_second": per_second(len(done)),
        "input_tokens_per_second": per_second(sum(outcome.input_tokens for outcome in done)),
        "output_tokens_per_second": per_second(sum(outcome.output_tokens for outcome in done)),
        "first_token_seconds": spread([outcome.first for outcome in done]),
        "latency_seconds": spread([outcome.last for outcome in done]),
        "seconds_per_output_token": spread(
            [(o.last - o.first) / (o.output_tokens - 1) for o in done if o.output_tokens > 1]
        ),
        "slo_seconds": slo,
        "slo_attainment": sum(outcome.first <= slo for outcome in done) / len(outcomes),
    }


def spread(values: list[float]) -> dict[str, float] | None:
    """Mean, median and 95th percentile (the smallest value that 95 % do not exceed); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
    return {"mean": sum(ordered) / len(ordered), "p50": p50, "p95": p95}


def told(results: dict[str, Any]) -> list[str]:
    """The measurements as lines for the terminal."""
    lines = [
        f"answered      {results['completed']:,} of {results['requests']:,} requests in {results['seconds']:.1f} s",
        f"throughput    {results['requests_per_second']:.2f} requests/s, "
        f"{results['output_tokens_per_second']:.1f} tokens written/s, {results['input_tokens_per_second']:.1f} read/s",
    ]
    for words, key in (("first token", "first_token_seconds"), ("last token", "latency_seconds")):
        if found := results[key]:
            lines.append(
                f"{words:<14}mean {found['mean']:.2f} s, median {found['p50']:.2f} s, 95 % {found['p95']:.2f} s"
            )
    lines.append(f"in time       {results['slo_attainment']:.1%} had a first token within {results['slo_seconds']:g} s")
    return lines + [f"failed        {count} times: {error}" for error, count in results["errors"].items()]
