"""What the adapters in a folder ask of a server: how many there are, of which rank, and how large."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mora_peft.errors import UserError
from mora_peft.serving import folders
from mora_peft.tuner.files import CONFIG, WEIGHTS, read_config

#: What vLLM takes for --max-lora-rank.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Demand:
    """The adapters that a server must have room for."""

    count: int
    #: The largest r among them.
    rank: int
    #: The size of the largest, in bytes.
    size: int
    #: A sentence for each folder that is no adapter which can be served.
    refused: tuple[str, ...]


def adapters_in(folder: Path) -> dict[str, Path]:
    """The adapters directly in `folder` by name, as the server finds them: the name is that of an adapter's folder.

    Raises UserError where `folder` is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one with an adapter in each of its folders.")
    found = (path for path in sorted(folder.resolve().iterdir()) if folders.is_name(path.name))
    return {path.name: path for path in found if (path / CONFIG).is_file()}


def demand_of(adapters: Iterable[Path]) -> Demand:
    """What `adapters` need together; those that cannot be read are set aside with the reason."""
    ranks, sizes, refused = [0], [0], []
    for path in adapters:
        try:
            rank, size = rank_of(path), (path / WEIGHTS).stat().st_size
        except (UserError, OSError) as error:
            refused.append(str(error))
            continue
        ranks.append(rank)
        sizes.append(size)
    return Demand(len(sizes) - 1, max(ranks), max(sizes), tuple(refused))


def rank_of(folder: Path) -> int:
    """The largest r of the adapter's layers, by its configuration alone.

    Raises UserError where the configuration cannot be read, names no r, or one beyond what vLLM takes.
    """
    fields = read_config(folder)
    pattern = fields.get("rank_pattern") or {}
    found = [fields.get("r"), *(pattern.values() if isinstance(pattern, dict) else [])]
    if not all(type(r) is int and r > 0 for r in found):
        raise UserError(f"{folder / CONFIG} has no r (a whole number from 1 on): only MoRA and LoRA can be served.")
    if max(found) > RANKS[-1]:
        raise UserError(f"{folder} has r={max(found)}, but at most {RANKS[-1]} can be served: merge it into the base.")
    return max(found)
