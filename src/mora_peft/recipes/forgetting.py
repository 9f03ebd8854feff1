"""Forgetting: what training did to the perplexity of general text, or of general answers, which it was not about."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ranks
from .adapters import beneath
from .data import each_row, load_questions, load_texts
from .files import write_json
from .measures.perplexity import answer_perplexity, perplexity
from .settings import Settings

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

FORGETTING = "forgetting.json"  # what the base was like, for a run that is resumed


class Forgetting:
    """Measures a run's `forgetting_data`: texts, or completions after their prompts.

    UserError where it holds chats, or nothing.
    """

    def __init__(self, config: Settings):
        source = config.forgetting_data
        answers = isinstance(next(each_row(source)).get("prompt"), str)
        rows = load_questions(source) if answers else load_texts(source)
        self.rows = rows.select(range(min(config.forgetting_rows, len(rows))))
        self.config = config
        self.found: dict[str, Any] = {}

    def before(self, model: "Module", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Measure the base, beneath any adapter; a resumed run takes what it measured when it began."""
        file = Path(self.config.output) / FORGETTING
        try:
            self.found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            with beneath(model):
                value = self._measured(model, tokenizer)
            self.found = {
                "before": value,
                "after": None,
                "rows": len(self.rows),
                "data": self.config.forgetting_data,
            }
            ranks.wait()  # all have looked for the file
            if ranks.is_first():
                write_json(file, self.found)

    def after(self, model: "Module", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.found["after"] = self._measured(model, tokenizer)

    def _measured(self, model: "Module", tokenizer: "PreTrainedTokenizerBase") -> float:
        size = self.config.evaluate_batch_size
        if "prompt" in self.rows.column_names:
            return answer_perplexity(model, tokenizer, self.rows, size)
        return perplexity(model, tokenizer, self.rows, self.config.max_length, size)
