"""Sending a trace to a server of OpenAI's completions API, and noting what came back when."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

from .trace import Request

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_LISTING_SECONDS = 30


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    `first` and `last` are the seconds from the moment it was due to its first and its last token; `error` says why
    there is no answer, or no whole one.
    """

    first: float | None = None
    last: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Server:
    """Where a server listens, and how it is asked.

    Args:
        url: Its address, with or without `/v1`.
        api_key: Sent as a bearer token where there is one.
        timeout: Seconds after which a request counts as failed.
        concurrency: Requests that are open at once at most; the others wait here, and their waiting counts. None: any.
        extra: Fields beyond OpenAI's that go with every request, such as vLLM's `ignore_eos`.
    """

    url: str
    api_key: str | None = None
    timeout: float = 600.0
    concurrency: int | None = None
    extra: dict[str, Any] | None = None

    def at(self, path: str) -> str:
        """The address of `path` below `/v1`."""
        return f"{self.url.rstrip('/').removesuffix('/v1')}/v1/{path}"

    def session(self) -> "ClientSession":
        """A session without limits of its own: it is the trace that says how much happens at once."""
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return ClientSession(
            connector=TCPConnector(limit=0), timeout=ClientTimeout(total=self.timeout), headers=headers
        )


async def models(server: Server) -> list[dict[str, Any]]:
    """What the server lists as its models; UserError where it does not answer, or with something else."""
    from aiohttp import ClientError, ClientTimeout

    try:
        async with (
            server.session() as session,
            session.get(server.at("models"), timeout=ClientTimeout(total=_LISTING_SECONDS)) as response,
        ):
            if response.status != 200:
                raise UserError(f"{server.url} lists no models: {await _refusal(response)}")
            return (await response.json())["data"]
    except (ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"There is no server of OpenAI's API at {server.url} ({str(error) or type(error).__name__}): start one, "
            "or give its address with --url."
        ) from error


async def warm_up(server: Server, names: list[str]) -> list[Outcome]:
    """Ask every model in `names` for one token, a few at a time."""
    return await replay(server, [Request(0.0, place, "time", 1) for place in range(len(names))], names, 8)


async def replay(
    server: Server, trace: list[Request], names: list[str], concurrency: int | None = None
) -> list[Outcome]:
    """Send every request of `trace` when it is due, whether or not earlier ones are answered; outcomes in its order."""
    from tqdm import tqdm

    concurrency = concurrency or server.concurrency
    gate = asyncio.Semaphore(concurrency or len(trace))
    with tqdm(total=len(trace), unit=" requests", disable=None) as bar:
        async with server.session() as session:
            start = time.perf_counter()

            async def send(request: Request) -> Outcome:
                await asyncio.sleep(request.at - (time.perf_counter() - start))
                async with gate:
                    outcome = await _ask(server, session, request, names[request.adapter], start + request.at)
                bar.update()
                return outcome

            return await asyncio.gather(*(send(request) for request in trace))


async def _ask(server: Server, session: "ClientSession", request: Request, model: str, due: float) -> Outcome:
    """Ask for a streamed completion, and time its tokens from `due` on."""
    from aiohttp import ClientError

    body = {
        "model": model,
        "prompt": request.prompt,
        "max_tokens": request.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **(server.extra or {}),
    }
    first, last, pieces, usage, whole = None, None, 0, {}, False
    try:
        async with session.post(server.at("completions"), json=body) as response:
            if response.status != 200:
                return Outcome(error=await _refusal(response))
            async for event in _events(response):
                if event is None:
                    whole = True
                    continue
                if "error" in event:
                    return Outcome(error=str(event["error"]))
                usage = event.get("usage") or usage
                if event.get("choices"):
                    last = time.perf_counter() - due
                    first = last if first is None else first
                    pieces += 1
    except (ClientError, TimeoutError, OSError, ValueError) as error:
        return Outcome(error=str(error) or type(error).__name__)
    if not whole or first is None:
        return Outcome(error="the answer broke off")
    return Outcome(first, last, usage.get("prompt_tokens", 0), usage.get("completion_tokens", pieces))


async def _events(response: "ClientResponse") -> AsyncIterator[dict[str, Any] | None]:
    """The events of a stream, parsed; None for the one that says that the answer is whole."""
    async for line in response.content:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            yield None if data == b"[DONE]" else json.loads(data)


async def _refusal(response: "ClientResponse") -> str:
    """A status and the sentence that came with it."""
    text = await response.text()
    try:
        found = json.loads(text)
        text = found["error"]["message"] if isinstance(found["error"], dict) else found["error"]
    except (ValueError, KeyError, TypeError):
        pass
    return f"{response.status} {' '.join(str(text).split())[:200]}".strip()
