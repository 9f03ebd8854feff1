"""`mora bench serve`: measure a server that has many adapters."""

import sys

from mora_peft.cli._parser import BAD_INPUT, run_command
from mora_peft.recipes.serving.bench import BenchServeConfig, bench_serve

USAGE = """usage: mora bench serve [options]

Measure a server of OpenAI's completions API. `mora bench serve --help` lists the options."""


def main(argv: list[str]) -> int:
    """Run `mora bench serve ...`: what is measured is a word of its own."""
    if argv[:1] in (["-h"], ["--help"]):
        print(USAGE)
        raise SystemExit(0)
    if argv[:1] != ["serve"]:
        found = f"not {argv[0]!r}" if argv else "but nothing was given"
        print(f"mora bench: what is measured is `serve`, {found}; see mora bench serve --help.", file=sys.stderr)
        return BAD_INPUT
    return run_command("bench serve", BenchServeConfig, bench_serve, argv[1:])
