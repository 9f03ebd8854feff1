"""`mora serve`: MoRA and LoRA adapters beside their base model, served by vLLM."""

import json
from dataclasses import fields
from itertools import chain

from mora_peft.cli._parser import run_command
from mora_peft.recipes.serving.launch import ServeConfig, groups, option_of, serve

_OWN = {"", "h", "help", "config", *(field.name.replace("_", "-") for field in fields(ServeConfig))} - {"model"}


def main(argv: list[str]) -> int:
    """Run `mora serve MODEL ...`: options that are not ours, and what follows them, go to vLLM."""
    given = groups(argv)
    own = chain.from_iterable(group for group in given if option_of(group[0]) in _OWN)
    passed = [*chain.from_iterable(group for group in given if option_of(group[0]) not in _OWN)]
    vllm = [f"--vllm+={json.dumps(passed)}"] if passed else []
    return run_command("serve", ServeConfig, serve, [*own, *vllm], positional=True)
