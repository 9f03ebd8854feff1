"""`mora bench serve`: the laws of its trace, its sums, and its client against a server that misbehaves at will."""

import asyncio
import json
import socket
import statistics
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.cli import bench as command
from mora_peft.cli._parser import BAD_INPUT
from mora_peft.errors import UserError
from mora_peft.recipes.serving.bench import BenchServeConfig, bench_serve, spread, summary
from mora_peft.recipes.serving.client import Outcome, Server, models, replay
from mora_peft.recipes.serving.trace import Laws, Request, draw_trace

LAWS = Laws(requests=4000, rate=5.0, cv=1.0, alpha=1.0, input_range=(3, 9), output_range=(2, 5))


def gaps(trace: list[Request]) -> list[float]:
    times = [0.0, *(request.at for request in trace)]
    return [late - early for early, late in pairwise(times)]


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_gaps_have_the_mean_and_the_variation_asked_for(cv):
    found = gaps(draw_trace(replace(LAWS, cv=cv), 10, seed=0))
    mean = statistics.mean(found)
    assert mean == pytest.approx(1 / LAWS.rate, rel=0.15)
    assert statistics.stdev(found) / mean == pytest.approx(cv, rel=0.15)


def test_without_variation_requests_come_evenly():
    assert gaps(draw_trace(replace(LAWS, requests=50, cv=0.0), 10, seed=0)) == pytest.approx([0.2] * 50)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_first_share_s_of_the_adapters_gets_s_to_the_alpha_of_the_requests(alpha, share):
    trace = draw_trace(replace(LAWS, alpha=alpha), 1000, seed=1)
    asked = sum(request.adapter < share * 1000 for request in trace) / len(trace)
    assert asked == pytest.approx(share**alpha, abs=0.03)


@given(seed=st.integers(0, 99), adapters=st.sampled_from([1, 2, 5, 2000]))
def test_a_trace_hangs_on_its_seed_and_only_the_adapters_on_their_number(seed, adapters):
    laws = replace(LAWS, requests=40)
    trace = draw_trace(laws, adapters, seed)
    assert trace == draw_trace(laws, adapters, seed)
    assert trace != draw_trace(laws, adapters, seed + 1)
    for request, other in zip(trace, draw_trace(laws, 7, seed), strict=True):
        assert replace(request, adapter=0) == replace(other, adapter=0)
        assert 0 <= request.adapter < adapters and 0 <= other.adapter < 7
        assert 3 <= len(request.prompt.split()) <= 9 and 2 <= request.output_tokens <= 5


def test_lengths_reach_both_ends():
    trace = draw_trace(LAWS, 1, seed=0)
    assert {len(request.prompt.split()) for request in trace} == set(range(3, 10))
    assert {request.output_tokens for request in trace} == set(range(2, 6))


@given(values=st.lists(st.floats(0, 1e3), min_size=1, max_size=50))
def test_percentiles_are_the_smallest_values_that_enough_do_not_exceed(values):
    found = spread(values)
    for key, share in (("p50", 0.5), ("p95", 0.95)):
        assert found[key] in values
        assert sum(value <= found[key] for value in values) >= share * len(values)
        assert sum(value < found[key] for value in values) < share * len(values)


def test_the_sums_of_a_run():
    trace = [Request(at, place, "", 3) for at, place in ((0.0, 0), (1.0, 1), (2.0, 0), (3.0, 2))]
    outcomes = [Outcome(0.5, 1.0, 10, 3), Outcome(2.0, 9.0, 20, 8), Outcome(error="full"), Outcome(error="full")]
    found = summary(outcomes, trace, slo=1.0)
    assert (found["requests"], found["completed"], found["failed"], found["errors"]) == (4, 2, 2, {"full": 2})
    assert found["seconds"] == 10.0 and found["adapters_asked"] == 3
    assert found["requests_per_second"] == 0.2
    assert (found["input_tokens_per_second"], found["output_tokens_per_second"]) == (3.0, 1.1)
    assert found["first_token_seconds"] == {"mean": 1.25, "p50": 0.5, "p95": 2.0}
    assert found["seconds_per_output_token"] == {"mean": 0.625, "p50": 0.25, "p95": 1.0}
    assert found["slo_attainment"] == 0.25, "what failed was not in time"


def test_nothing_answered_has_sums_too():
    found = summary([Outcome(error="gone")], [Request(0.0, 0, "", 1)], slo=1.0)
    assert found["requests_per_second"] == 0.0 and found["first_token_seconds"] is None


class Misbehaving:
    """A server whose models do what their names say."""

    def __init__(self):
        self.bodies, self.open, self.most_open = [], 0, 0

    async def models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer wrong":
            return web.json_response({"error": "Unauthorized"}, status=401)
        listed = [{"id": "base"}, *({"id": name, "parent": "base"} for name in ("good", "bad", "cut"))]
        return web.json_response({"data": listed})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if body["model"] == "bad":
            return web.json_response({"error": {"message": "It is\nmalformed."}}, status=400)
        response = web.StreamResponse()
        await response.prepare(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(0.05)
        for _ in range(body["max_tokens"]):
            await response.write(b'data: {"choices": [{"text": "a"}], "usage": null}\n\n')
        self.open -= 1
        if body["model"] == "failing":
            await response.write(b'data: {"error": {"message": "engine"}}\n\n')
        if body["model"] != "cut":
            usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": body["max_tokens"]}})
            await response.write(f"data: {usage}\n\ndata: [DONE]\n\n".encode())
        return response


@asynccontextmanager
async def started(server: Misbehaving):
    """The address of `server`, for as long as the block lasts."""
    app = web.Application()
    app.add_routes([web.get("/v1/models", server.models), web.post("/v1/completions", server.completions)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def sent(names: list[str], trace: list[Request], **settings) -> tuple[list[Outcome], Misbehaving]:
    """What became of `trace`, and the server that saw it."""

    async def send():
        server = Misbehaving()
        async with started(server) as url:
            return await replay(Server(url, **settings), trace, names), server

    return asyncio.run(send())


def test_every_kind_of_answer_is_told_apart():
    names = ["good", "bad", "cut", "failing"]
    outcomes, server = sent(names, [Request(0.0, place, "time", 3) for place in range(4)], extra={"ignore_eos": True})
    good, bad, cut, failing = outcomes
    assert good.error is None and (good.input_tokens, good.output_tokens) == (7, 3)
    assert 0.05 <= good.first <= good.last < 5
    assert bad.error == "400 It is malformed."
    assert cut.error == "the answer broke off" and "engine" in failing.error
    body = next(body for body in server.bodies if body["model"] == "good")
    assert body["prompt"] == "time" and body["max_tokens"] == 3 and body["ignore_eos"] and body["stream"]


def test_requests_are_sent_when_they_are_due_and_timed_from_then():
    trace = [Request(at, 0, "time", 1) for at in (0.0, 0.02, 0.4)]
    (early, overlapping, late), server = sent(["good"], trace)
    assert server.most_open == 2
    assert max(early.first, overlapping.first, late.first) < 0.4, "waiting for its turn is no part of a request's time"


def test_a_limit_holds_and_waiting_for_it_counts():
    outcomes, server = sent(["good"], [Request(0.0, 0, "time", 1)] * 4, concurrency=1)
    assert server.most_open == 1
    assert max(outcome.first for outcome in outcomes) > 3 * 0.05


def test_a_request_that_takes_too_long_has_failed():
    [outcome], _ = sent(["good"], [Request(0.0, 0, "time", 1)], timeout=0.01)
    assert outcome.error


def benched(tmp_path, **settings) -> dict:
    """The record of a run against a misbehaving server."""

    async def run():
        async with started(Misbehaving()) as url:
            config = BenchServeConfig(f"{url}/v1", str(tmp_path / "found.json"), rate=50, duration=0.2, **settings)
            return await asyncio.to_thread(bench_serve, config)

    return json.loads(asyncio.run(run()).read_text())


def test_a_run_is_written_with_what_made_it(tmp_path, capsys):
    record = benched(tmp_path, output_range=(1, 3), details=True, api_key="secret")
    assert record["results"]["requests"] == len(record["requests"]) == 10
    assert record["adapters"] == 3 and record["config"]["alpha"] == 1.0
    models = Counter(request["model"] for request in record["requests"])
    assert set(models) <= {"good", "bad", "cut"}
    assert record["results"]["completed"] == models["good"]
    assert "secret" not in (tmp_path / "found.json").read_text()
    assert "throughput" in capsys.readouterr().out


def test_the_base_alone_and_names_of_a_folder_can_be_asked_for(tmp_path):
    assert {request["model"] for request in benched(tmp_path, count=0, details=True)["requests"]} == {"base"}
    folder = tmp_path / "adapters"
    for name in ("good", "later"):
        (folder / name).mkdir(parents=True)
        (folder / name / "adapter_config.json").write_text("{}")
    record = benched(tmp_path, adapters=str(folder), count=1, details=True)
    assert {request["model"] for request in record["requests"]} == {"good"}
    with pytest.raises(UserError, match="2 adapters, but 3"):
        benched(tmp_path, adapters=str(folder), count=3)


def test_a_warm_up_that_fails_ends_the_run_before_it_starts(tmp_path):
    with pytest.raises(UserError, match=r"2 of 3 models.*malformed"):
        benched(tmp_path, warmup=True)


def test_no_server_and_a_wrong_key_get_one_sentence(tmp_path, capsys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert command.main(["serve", "--url", address, "--output", str(tmp_path / "none.json")]) == BAD_INPUT
    [sentence] = capsys.readouterr().err.strip().splitlines()
    assert address in sentence and not (tmp_path / "none.json").exists()

    async def ask():
        async with started(Misbehaving()) as url:
            await models(Server(url, "wrong"))

    with pytest.raises(UserError, match="401 Unauthorized"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "0"],
        ["--alpha", "-1"],
        ["--cv", "nan"],
        ["--input_range", "[5,3]"],
        ["--output_range", "[0,3]"],
        ["--concurrency", "0"],
        ["--count", "-1"],
    ],
)
def test_settings_without_sense_are_named(words, capsys):
    assert command.main(["serve", *words]) == BAD_INPUT
    [sentence] = capsys.readouterr().err.strip().splitlines()
    assert words[0].removeprefix("--") in sentence


@pytest.mark.parametrize("words", [[], ["sevre"]])
def test_what_is_measured_must_be_said(words, capsys):
    assert command.main(words) == BAD_INPUT
    assert "mora bench serve --help" in capsys.readouterr().err
