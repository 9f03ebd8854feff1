"""`mora demo`: teach a real model invented facts with MoRA and LoRA, then ask the merged model one of them."""

from pathlib import Path

from mora_peft.cli._parser import run_command
from mora_peft.errors import UserError
from mora_peft.recipes.compare import CompareConfig, compare, plan
from mora_peft.recipes.runs import read_run

CONFIG = Path("configs/demo.yaml")


def main(argv: list[str]) -> int:
    """Run `mora demo`: `configs/demo.yaml`, with any option of `mora compare` on top of it."""
    # A wheel has no configs folder; there, and for other experiments, --config names a file.
    preset = ["--config", str(CONFIG)] if CONFIG.is_file() else []
    return run_command("demo", CompareConfig, demo, [*preset, *argv])


def demo(config: CompareConfig) -> None:
    """Compare, merge the MoRA adapter, ask the merged model one question, and say where the report is."""
    if not Path(config.model).is_dir():
        raise UserError(f"There is no base model in {config.model}: run `make install` first, or give --model.")
    from mora_peft.recipes.merge import MergeConfig, merge

    report = compare(config)
    output = next((Path(run.output) for run in plan(config) if run.method == "mora"), None)
    run = read_run(output) if output else None
    if run is None or run["status"] != "finished" or not run["examples"]:
        raise UserError("No MoRA run of this comparison finished with examples, so there is nothing to merge and ask.")
    merged = Path(config.output) / "merged"
    if _is_older(merged / "config.json", output / "run.json"):
        merge(MergeConfig(adapter=str(output / "adapter"), output=str(merged)))
    _ask(merged, run["examples"][0])
    print(f"\nReport: {report}")


def _is_older(file: Path, than: Path) -> bool:
    """Whether `file` is missing or was written before `than`."""
    return not file.is_file() or file.stat().st_mtime < than.stat().st_mtime


def _ask(merged: Path, example: dict[str, str]) -> None:
    from mora_peft.recipes.decoding import greedy
    from mora_peft.recipes.libraries import quiet_libraries
    from mora_peft.recipes.models import load_base, resolve_dtype

    quiet_libraries()
    model, tokenizer = load_base(str(merged), resolve_dtype("auto"))
    length = len(tokenizer(example["expected"])["input_ids"]) + 4
    [answer] = greedy(model, tokenizer, [example["prompt"]], length)
    print(f"\nQuestion:     {example['prompt']}")
    print(f"Expected:     {example['expected']}")
    print(f"Base model:   {example['before']}")
    print(f"Merged model: {answer}" + ("" if answer == example["expected"] else "   (wrong)"))
