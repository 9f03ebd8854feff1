"""One sentence for the user, carried from a worker to the API server: vLLM passes errors on as text only."""

import re

from mora_peft.errors import UserError

_MARKED = re.compile(r"\[mora-peft: (.*)\]", re.DOTALL)


def marked(error: Exception) -> UserError:
    """`error` with its sentence marked, so that `sentence_in` finds it in whatever vLLM wraps around it."""
    return UserError(f"[mora-peft: {error}]")


def sentence_in(text: str) -> str | None:
    """The sentence that `marked` put into `text`; None where there is none."""
    found = _MARKED.search(text)
    return found and found.group(1)
