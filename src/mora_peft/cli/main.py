"""The `mora` command: a table of commands, each a module of this package that is imported only when it is asked for."""

import sys
from importlib import import_module

COMMANDS = {
    "train": "teach a model with one method: mora, lora, full fine-tuning or prompt tuning",
    "teach": "documents in, a model that knows them out, with proof",
    "compare": "train several methods at one parameter budget, and write a report",
    "evaluate": "measure recall, or loss and perplexity, of an adapter or a model on a file",
    "merge": "write a model with its adapter merged in, verified against the unmerged one",
    "convert": "turn a checkpoint of the authors' code into a MoRA adapter, or MoRA into LoRA",
    "inspect": "list the layers of an adapter: sizes, budget, singular values",
    "chat": "talk to a model in the terminal, with and without its adapter",
    "serve": "serve MoRA and LoRA adapters beside their base model over HTTP, by vLLM",
    "bench": "bench serve: throughput and waiting times of a server that has many adapters",
    "report": "rebuild the HTML report of a comparison",
    "demo": "teach a real model new facts with MoRA and LoRA, in minutes on two cores",
}


def main(argv: list[str] | None = None) -> int:
    """Run `mora COMMAND ...` and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"mora-peft {version('mora-peft')}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        from mora_peft.cli._parser import BAD_INPUT, nearest

        print(f"mora: there is no command {name!r}{nearest(name, list(COMMANDS))}", file=sys.stderr)
        return BAD_INPUT
    return import_module(f"mora_peft.cli.{name}").main(rest)


def overview() -> str:
    """The text of `mora --help`."""
    lines = [f"  {name:<10}{phrase}" for name, phrase in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mora COMMAND [options]",
            "",
            "MoRA (arXiv 2405.12130): teach a language model new knowledge with one square matrix a layer.",
            "",
            *lines,
            "",
            "`mora COMMAND --help` lists a command's options; any of them can stand in a YAML file for --config.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
