"""The folder of a run: whose it is, whether it is done, and what is removed for a fresh start."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

from . import provenance, ranks
from .files import write_json
from .forgetting import FORGETTING

if TYPE_CHECKING:
    from .train import TrainConfig

DIVERGED = 3  # exit code of `mora train` where a run diverged

CLAIM = "settings.json"  # names the run that a folder belongs to, from its first moment on
NOTES = ("before.json", "after.json", FORGETTING)  # what a run must still know of its beginning when it is resumed


def read_run(output: Path) -> dict[str, Any] | None:
    """The run.json in `output`, or None where there is none that can be read."""
    return read_json(output / "run.json")


def is_finished(config: "TrainConfig") -> bool:
    """Whether the output folder holds this very run, finished or diverged: there is nothing left to do."""
    run = read_run(Path(config.output))
    same = run is not None and run.get("fingerprint") == provenance.fingerprint(asdict(config))
    return same and run["status"] in ("finished", "diverged")


def holds_another_run(config: "TrainConfig") -> bool:
    """Whether the output folder holds a run, begun or finished, with settings or data other than these."""
    claim = read_json(Path(config.output) / CLAIM)
    return claim is not None and claim["fingerprint"] != provenance.fingerprint(asdict(config))


def claim(config: "TrainConfig") -> None:
    """Note in the output folder which run it belongs to."""
    file = Path(config.output) / CLAIM
    write_json(file, {"fingerprint": provenance.fingerprint(asdict(config)), "config": asdict(config)})


def make_room(config: "TrainConfig") -> None:
    """Empty the output folder if a fresh start is asked for; UserError if it holds another run."""
    output = Path(config.output)
    ranks.wait()  # nobody may still be reading what is removed here
    if config.fresh and ranks.is_first():
        _empty(output)
    ranks.wait()
    if holds_another_run(config):
        before, now = read_json(output / CLAIM)["config"], json.loads(json.dumps(asdict(config)))
        names = [name for name in now if now[name] != before.get(name) and name not in provenance.BESIDE_THE_POINT]
        what = f"with another {' and '.join(names)}" if names else "on data with other contents"
        raise UserError(f"{output} holds a run {what}: choose another --output, or start anew with --fresh.")


def _empty(output: Path) -> None:
    """Remove what a run leaves in its folder, and nothing else."""
    for folder in (*output.glob("checkpoint-*"), output / "adapter", output / "model"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in (CLAIM, "run.json", *NOTES):
        (output / name).unlink(missing_ok=True)


def read_json(file: Path) -> Any:
    """The JSON in `file`, or None where there is none that can be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
