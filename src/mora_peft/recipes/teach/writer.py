"""Further wordings of facts, written by a server that speaks OpenAI's chat API: asked for by name, or not at all."""

import os
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mora_peft.errors import UserError

from .facts import Fact
from .wordings import Row, key

_ASK = """Write two different questions that the following sentence answers with exactly "{answer}".
Use the sentence's language and other words than it does. One question a line, and nothing else.

{sentence}"""
_AT_ONCE = 8  # requests
_SECONDS = 60
_TRIES = 3
_PAUSE = 1  # seconds before the second try, twice that before the third
_SHORTEST = 4  # characters of a question


class Writer:
    """The server at `url`; UserError where it does not answer, or not as such a server does."""

    def __init__(self, url: str, model: str | None):
        self.url = url.rstrip("/")
        self.model = model or self._call("/models", lambda said: said["data"][0]["id"])

    def rows(self, facts: list[Fact], held_out: set[str]) -> dict[Fact, list[Row]]:
        """Questions to teach each fact by, but none that is held out, gives the answer away, or has two answers.

        A fact that the server fails for, each time it is tried, goes without; UserError where it fails for all.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            written = list(pool.map(self._tried, facts))
        failed = [error for error in written if isinstance(error, UserError)]
        if failed and len(failed) == len(facts):
            raise failed[0]
        if failed:
            print(f"The writer failed for {len(failed)} of {len(facts)} facts: {failed[0]}", flush=True)
        found = {fact: said for fact, said in zip(facts, written, strict=True) if not isinstance(said, UserError)}
        answers = defaultdict(set)
        for fact, questions in found.items():
            for question in questions:
                answers[key(question)].add(key(fact.answer))
        return {
            fact: [
                Row(question, fact.answer, True)
                for question in questions
                if key(question) not in held_out
                and key(fact.answer) not in key(question)
                and len(answers[key(question)]) == 1
            ]
            for fact, questions in found.items()
        }

    def _tried(self, fact: Fact) -> list[str] | UserError:
        try:
            return self._questions(fact)
        except UserError as error:
            return error

    def _questions(self, fact: Fact) -> list[str]:
        ask = _ASK.format(answer=fact.answer, sentence=fact.sentence)
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": ask}],
            "max_tokens": 160,
            "temperature": 0.7,
        }
        said = self._call("/chat/completions", lambda said: said["choices"][0]["message"]["content"].split("\n"), body)
        lines = [" ".join("".join(filter(_is_text, line)).split()).lstrip(" -*•0123456789.)") for line in said]
        return [line for line in lines if len(line) >= _SHORTEST and line[-1] in "?？"][:2]

    def _call(self, path: str, take: Any, body: dict[str, Any] | None = None) -> Any:
        """What `take` finds in the server's answer; a server that is busy or fails is asked again."""
        import httpx

        secret = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        for left in reversed(range(_TRIES)):
            try:
                answer = httpx.request(
                    "POST" if body else "GET", self.url + path, json=body, headers=headers, timeout=_SECONDS
                )
                if left and (answer.status_code == 429 or answer.status_code >= 500):
                    time.sleep(_PAUSE * (_TRIES - left))
                    continue
                return take(answer.raise_for_status().json())
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise UserError(f"The writer at {self.url} does not answer as OpenAI's API does: {error}.") from error
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise UserError(
                    f"The writer at {self.url} answers {path} in another form than OpenAI's API ({error!r})."
                ) from error


def _is_text(character: str) -> bool:
    return character.isprintable() or character.isspace()
