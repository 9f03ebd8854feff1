"""Checkpoints that are whole or not there: a folder lists its own files, and one cut short is passed over."""

import json
import shutil
from pathlib import Path

from mora_peft.errors import UserError

_MANIFEST = "manifest.json"
_KEPT = 2  # the last one, and the one before should the last be damaged
_IN_PARTS = {"FSDP": "pytorch_model_fsdp*", "DeepSpeed": "global_step*"}  # how each names what others cannot read


def seal(folder: Path) -> None:
    """List the files of a complete checkpoint, with their sizes, in the checkpoint."""
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    (folder / _MANIFEST).write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def is_whole(folder: Path) -> bool:
    """Whether every file that the checkpoint was sealed with is there in its full size."""
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def latest(output: Path) -> Path | None:
    """The newest whole checkpoint under `output`, or None."""
    return next(filter(is_whole, reversed(_all(output))), None)


def best(output: Path) -> Path | None:
    """The whole checkpoint under `output` whose own step has the lowest measured loss; None where none was measured."""
    measured = {folder: loss for folder in filter(is_whole, _all(output)) if (loss := _loss(folder)) is not None}
    return min(measured, key=measured.get, default=None)


def drop_old(output: Path, but: Path | None = None) -> None:
    """Remove all but the last whole checkpoints, and the one named `but`."""
    for folder in [folder for folder in _all(output) if is_whole(folder)][:-_KEPT]:
        if folder != but:
            shutil.rmtree(folder)


def step_of(folder: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(folder.name.removeprefix("checkpoint-"))


def check_form(folder: Path, engine: str) -> None:
    """UserError where the checkpoint is in parts, or whole, and `engine` reads the other: "FSDP", "DeepSpeed" or ""."""
    wrote = next((name for name, files in _IN_PARTS.items() if any(folder.glob(files))), "")
    if wrote != engine:
        raise UserError(
            f"{folder} was written {f'in parts by {wrote}' if wrote else 'whole'}, and cannot be read "
            f"{f'by {engine}' if engine else f'without {wrote}'}: start the run as it was started before, or anew with "
            "--fresh."
        )


def _loss(folder: Path) -> float | None:
    """The loss measured at the checkpoint's step; NaN counts as none."""
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry and entry["step"] == step_of(folder)]
    return losses[-1] if losses and losses[-1] == losses[-1] else None


def _all(output: Path) -> list[Path]:
    """The checkpoint folders under `output`, oldest first."""
    found = [folder for folder in output.glob("checkpoint-*") if folder.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=step_of)
