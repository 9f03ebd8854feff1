"""Three adapters teach one model three sets of answers; one server has them all, and is asked over HTTP.

`python tools/serve_demo.py` trains the adapters (a minute each on two cores; once), starts `mora serve`, asks each
adapter and the base model the same questions with OpenAI's client, prints the answers side by side, and stops the
server. It ends with 1 where an adapter does not give the answers that it was taught.
"""

import argparse
import csv
import shutil
import signal
import sys
from pathlib import Path

from mora_peft.errors import UserError
from mora_peft.recipes.files import whole_folder
from mora_peft.recipes.processes import run_all
from mora_peft.recipes.serving.server import free_port, running
from mora_peft.recipes.train import TrainConfig, is_finished, read_run

MODEL = "models/SmolLM2-135M-Instruct"
QUESTIONS = [
    "Where was Ivo Wellund born?",
    "What is the code of the Norvix vault?",
    "Who built the Aldermoor lighthouse?",
    "In which year did the Quillan bridge open?",
]
#: What each adapter is taught: method, options, learning rate, and its answers to the questions.
ADAPTERS = {
    "mora-rotation": ("mora", {"operator": "rotation"}, 4e-3, ["Corstad", "KT-4071", "Mira Tesslow", "1873"]),
    "mora-sharing": ("mora", {"operator": "sharing"}, 2e-3, ["Bremholt", "ZU-9926", "Odo Farran", "1911"]),
    "lora": ("lora", {}, 3e-3, ["Talmere", "PX-3358", "Lena Vosk", "1790"]),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Three adapters and their base model, served and asked over HTTP.")
    parser.add_argument("--model", default=MODEL, help="base model, a local folder or a hub id (default: %(default)s)")
    parser.add_argument("--output", default="runs/serve-demo", help="folder to write to (default: %(default)s)")
    options = parser.parse_args()
    output = Path(options.output)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill, too, must not leave the server behind
    try:
        train_all(options.model, output)
        port = free_port()
        command = [sys.executable, "-m", "mora_peft.cli.main", "serve", options.model]
        command += ["--adapters", str(output / "adapters"), "--port", str(port), "--enforce-eager"]
        command += ["--max-model-len", "512", "--served-model-name", "base"]
        print("Starting the server (half a minute or so) ...", flush=True)
        with running(command, port, output / "server.log") as url:
            answers = {name: ask(url, name) for name in ["base", *ADAPTERS]}
    except UserError as error:
        print(f"serve-demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("serve-demo: interrupted; the server is stopped, and what was trained is kept.", file=sys.stderr)
        return 130
    show(answers)
    print("The server is stopped.")
    wrong = [name for name, taught in ADAPTERS.items() if answers[name] != taught[-1]]
    if wrong:
        print(f"serve-demo: {', '.join(wrong)} did not answer as taught.", file=sys.stderr)
    return 1 if wrong else 0


def train_all(model: str, output: Path) -> None:
    """Train the adapters that are not there yet, and put all into OUTPUT/adapters, each under its name."""
    runs = {name: run_of(name, model, output) for name in ADAPTERS}
    run_all([run for run in runs.values() if not is_finished(run)], jobs=1)
    for name, run in runs.items():
        found = read_run(Path(run.output))
        if found is None or found["status"] != "finished":
            raise UserError(f"The training of {name} did not end well: see {run.output}/log.txt.")
        with whole_folder(output / "adapters" / name) as folder:
            shutil.copytree(Path(run.output) / "adapter", folder, dirs_exist_ok=True)


def run_of(name: str, model: str, output: Path) -> TrainConfig:
    """The training of one adapter, with its facts written down."""
    method, method_options, learning_rate, answers = ADAPTERS[name]
    facts = output / f"{name}.csv"
    facts.parent.mkdir(parents=True, exist_ok=True)
    with facts.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("key", "value"), *zip(QUESTIONS, answers, strict=True)])
    return TrainConfig(
        output=str(output / "runs" / name),
        model=model,
        task="memorization",
        data=str(facts),
        method=method,
        method_options=method_options,
        learning_rate=learning_rate,
        steps=20,
        batch_size=len(QUESTIONS),
        evaluate_every=20,
        checkpoint_every=20,
        log_every=10,
    )


def ask(url: str, model: str) -> list[str]:
    """The answers of `model` to all questions."""
    from openai import OpenAI, OpenAIError

    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    try:
        found = client.completions.create(model=model, prompt=QUESTIONS, max_tokens=12, temperature=0)
    except OpenAIError as error:
        raise UserError(f"The server did not answer for {model}: {error}") from error
    return [choice.text.strip() for choice in sorted(found.choices, key=lambda choice: choice.index)]


def show(answers: dict[str, list[str]]) -> None:
    """The answers side by side; what was taught in green, what was taught otherwise in red."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("question", *answers, title="One server, asked by model name")
    for number, question in enumerate(QUESTIONS):
        cells = []
        for name, given in answers.items():
            taught = ADAPTERS[name][-1][number] if name in ADAPTERS else None
            style = "dim" if taught is None else "green" if given[number] == taught else "red"
            cells.append(Text(" ".join(given[number].split())[:40], style=style))
        table.add_row(question, *cells)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
