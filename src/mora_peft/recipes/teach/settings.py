"""What `mora teach` can be told, in one dataclass; every default is meant to be good enough to leave alone."""

from dataclasses import dataclass, field
from typing import Any, Literal

from mora_peft.errors import UserError
from mora_peft.recipes.methods import first_rate, method_named

#: AdamW's learning rates that were best for facts with SmolLM2-135M at r=8; other methods keep their first guess.
RATES = {"mora rotation": 4e-3, "mora sharing": 2e-3, "lora": 4e-3}

FEW = 1.5  # passes; with less a model learns little


@dataclass(kw_only=True)
class TeachConfig:
    """Teach a model a folder of documents, and write a page that proves what it learned, and what it forgot.

    Args:
        output: Folder for the adapter, the rows it learned, and the proof (proof.html, proof.json).
        folder: Folder of documents: txt, md, html, pdf, docx, csv, tsv, xlsx, jsonl.
        model: Base model, a local folder or a hub id; with --from, that adapter's base.
        continue_from: An adapter that `mora teach` made, to teach further documents (--from). What it knew before is
            asked again.
        method: How to fine-tune: mora, lora or any other of `mora train` that leaves an adapter.
        method_options: Options of the method's PEFT configuration; for mora the operator.
        versus: A second method to teach the same rows with, to compare, such as lora.
        r: Parameter budget: as many parameters as a LoRA of this rank has.
        learning_rate: Peak learning rate; without it the best that is known for the method.
        minutes: Time for training, without reading and proof; without it `passes` decide.
        passes: How often each row is seen at most.
        batch_size: Rows a step.
        text_share: Passages of the documents for each row about a fact; more where not all would be seen otherwise.
        general_share: Rows of general text, of which what the base says is kept, for each row to learn.
        general_weight: Of a token of general text that is kept, against a token that is learned: with more, less is
            forgotten, and facts are learned more slowly.
        earlier_share: With --from, rows of what was taught before for each new row.
        passage_tokens: Longest passage in tokens.
        facts: Teach and ask so many facts at most, from all over the documents; the rest is learned as passages only.
            Without it, as many as the minutes allow.
        asked: Ask so many held-out questions at most.
        control: Folder of documents that are not taught, to ask about too; without it, pages of the package's own.
        questions: JSONL file of your own questions (prompt, completion), which are asked and never taught.
        general: General text (a file of rows, or a folder): of most of it, what the base says is kept, and a quarter
            tells what was forgotten. Without it, what the base model itself may answer to everyday questions.
        writer: Address of an OpenAI-compatible server that writes further wordings, such as
            http://localhost:8000/v1. The documents' sentences are sent there; without it nothing is sent anywhere.
        writer_model: The model to ask for at that server; without it the first that it has.
        largest_megabytes: Larger files are left out, and listed.
        dtype: Of the base model.
        seed: Seed of what is drawn at random.
        merge: Also write the model with its adapter merged, to output/merged.
        serve: Serve the adapter by vLLM when it is taught.
        fresh: Start anew where the output folder already holds something.
    """

    output: str
    folder: str = ""
    model: str | None = None
    continue_from: str | None = None
    method: str = "mora"
    method_options: dict[str, Any] = field(default_factory=dict)
    versus: str | None = None
    r: int = 8
    learning_rate: float | None = None
    minutes: float | None = None
    passes: float = 4
    batch_size: int = 16
    text_share: float = 0.03
    general_share: float = 0.16
    general_weight: float = 1
    earlier_share: float = 0.25
    passage_tokens: int = 128
    facts: int | None = None
    asked: int = 120
    control: str | None = None
    questions: str | None = None
    general: str | None = None
    writer: str | None = None
    writer_model: str | None = None
    largest_megabytes: float = 50
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0
    merge: bool = False
    serve: bool = False
    fresh: bool = False

    def __post_init__(self):
        if not self.folder:
            raise UserError("There is nothing to learn: give a folder of documents, mora teach FOLDER.")
        if self.model is None and self.continue_from is None:
            raise UserError("There is no model to teach: give --model, a folder or a hub id.")
        for name in ("r", "passes", "batch_size", "asked", "largest_megabytes", "minutes", "facts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} must be above 0, not {value}.")
        if min(self.text_share, self.general_share, self.general_weight) < 0 or self.passage_tokens < 32:
            raise UserError(
                "text_share, general_share and general_weight must be 0 or more, and passage_tokens at least 32."
            )
        for name in filter(None, (self.method, self.versus)):
            if method_named(name).trains_base or name == "prompt":
                raise UserError(f"{name} leaves no adapter of weights to teach with: choose mora, lora or another.")
        if self.versus == self.method:
            raise UserError(f"versus must be another method than {self.method}, which is taught anyway.")
        if self.method == "mora":
            self.method_options = {"operator": "rotation", **self.method_options}


def rate(config: TeachConfig, method: str, options: dict[str, Any]) -> float:
    """The learning rate to teach with: the one given, for the method that it was given for, or the best known."""
    if config.learning_rate is not None and method == config.method:
        return config.learning_rate
    known = RATES.get(f"{method} {options['operator']}" if options.get("operator") else method)
    return known if known and options.get("optimizer") != "muon" else first_rate(method, options)
