"""Further wordings of facts, written by a server that speaks OpenAI's chat API: asked for by name, or not at all."""

import os
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


class Writer:
    """The server at `url`; UserError where it does not answer, or not as such a server does."""

    def __init__(self, url: str, model: str | None):
        self.url = url.rstrip("/")
        self.model = model or self._call("/models")["data"][0]["id"]

    def rows(self, facts: list[Fact], held_out: set[str]) -> dict[Fact, list[Row]]:
        """Questions to teach each fact by, but none that is a held-out one, or that gives the answer away."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            written = list(pool.map(self._questions, facts))
        return {
            fact: [
                Row(question, fact.answer, True)
                for question in questions
                if key(question) not in held_out and key(fact.answer) not in key(question)
            ]
            for fact, questions in zip(facts, written, strict=True)
        }

    def _questions(self, fact: Fact) -> list[str]:
        ask = _ASK.format(answer=fact.answer, sentence=fact.sentence)
        said = self._call(
            "/chat/completions",
            {
                "model": self.model,
                "messages": [{"role": "user", "content": ask}],
                "max_tokens": 160,
                "temperature": 0.7,
            },
        )
        lines = said["choices"][0]["message"]["content"].split("\n")
        return [text for line in lines if (text := line.strip(" -*0123456789.")) and text[-1] in "?？"][:2]

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import httpx

        secret = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        try:
            answer = httpx.request(
                "POST" if body else "GET", self.url + path, json=body, headers=headers, timeout=_SECONDS
            )
            return answer.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise UserError(f"The writer at {self.url} does not answer as OpenAI's API does: {error}.") from error
