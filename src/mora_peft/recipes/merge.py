"""Merge an adapter into its base: a plain checkpoint, verified against the unmerged model before it is kept."""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mora_peft.errors import UserError

from . import provenance
from .adapters import check_output, put_on, read_adapter
from .embeddings import untie
from .files import whole_folder, write_json
from .models import load_base

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

RECORD = "merge.json"

# Relative error of the logits that rounding the merged weights once may cause; bfloat16 keeps 8 bits, float16 11.
TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}


@dataclass
class MergeConfig:
    """Write a model with its adapter merged in, verified against the unmerged one.

    Args:
        adapter: Folder of the adapter, MoRA's or any other that PEFT can merge.
        output: Folder for the merged model.
        base: Base model, a local folder or a hub id; without it the one that the adapter names.
        dtype: Of the merged weights; automatic is the base's own.
        tolerance: Largest relative error of the merged model's logits; without it 1e-4 in float32, 5e-3 in float16
            and 2e-2 in bfloat16.
    """

    adapter: str
    output: str
    base: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tolerance: float | None = None

    def __post_init__(self):
        if self.tolerance is not None and not self.tolerance > 0:
            raise UserError(f"tolerance must be above 0, not {self.tolerance}.")


def merge(config: MergeConfig) -> Path:
    """Merge, save, read back what was saved, compare its logits with the unmerged model's, and return the folder.

    Weights are added in float32 and rounded once. Both models are compared in float32 on a fixed batch, so that the
    error is that of the weights on disk and of nothing else. It is printed and stored in merge.json.

    Raises:
        UserError: A damaged or unfitting adapter, a quantized base, a method that has nothing to merge, or an error
            above the tolerance; nothing is left behind then.
    """
    import torch

    from .libraries import quiet_libraries

    quiet_libraries()
    output = Path(config.output)
    check_output(output, RECORD)
    adapter = read_adapter(config.adapter)
    if adapter.config.is_prompt_learning:
        raise UserError(f"{config.adapter} trains a prompt, not weights, so there is nothing to merge.")
    base_name = adapter.base(config.base)
    refuse_quantized(base_name)
    base, tokenizer = load_base(base_name, "auto")
    dtype = base.dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    name = str(dtype).removeprefix("torch.")
    tolerance = config.tolerance or TOLERANCES.get(name, TOLERANCES["bfloat16"])

    model = put_on(adapter, base.float())
    expected = probe_logits(model)
    with model.disable_adapter():
        effect = relative_error(probe_logits(model), expected)
    if untie(model):
        print("The base shares its embeddings with the output layer; in the merged model each has weights of its own.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")  # the comparison tells whether it matters
        merged = model.merge_and_unload().to(dtype)

    with whole_folder(output) as folder:
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del model, merged, base
        found = probe_logits(load_base(str(folder), torch.float32)[0])
        error = relative_error(found, expected)
        print(f"Logits of the merged model ({name}) against the unmerged one: relative error {error:.2e}")
        print(f"(tolerance {tolerance:.0e}; the adapter itself changes them by {effect:.2e})")
        if not error <= tolerance:
            raise UserError(
                f"The merged model differs from the unmerged one by {error:.2e}, more than the tolerance of "
                f"{tolerance:.0e}, so it was not kept: merge with --dtype float32, or raise --tolerance."
            )
        if error > effect / 2 > 0:
            print(f"Rounding to {name} loses much of an adapter as small as this one; --dtype float32 keeps it.")
        result = {
            "config": asdict(config),
            "base": base_name,
            "dtype": name,
            "relative_error": error,
            "largest_error": (found - expected).abs().max().item(),
            "same_next_token": (found.argmax(-1) == expected.argmax(-1)).float().mean().item(),
            "tolerance": tolerance,
            "adapter_effect": effect,
            "versions": provenance.versions(),
        }
        write_json(folder / RECORD, result)
    print(f"Merged model: {output}")
    return output


def refuse_quantized(base: str) -> None:
    """Raise UserError where the base model `base` is stored quantized.

    Merging there would round ΔW to the grid of a few bits and lose most of it.
    """
    from transformers import AutoConfig

    try:
        quantization = getattr(AutoConfig.from_pretrained(base), "quantization_config", None)
    except (OSError, ValueError) as error:
        raise UserError(f"The base model {base} could not be read: {str(error).splitlines()[0]}") from error
    if quantization is not None:
        raise UserError(
            f"The base model {base} is quantized, and its few bits cannot hold a merged adapter: give the "
            "unquantized model with --base, or dequantize it first."
        )


def probe_logits(model: "Module") -> "Tensor":
    """Logits (2, 32, vocabulary) of `model` in float32 on a batch of tokens that is the same every time."""
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(vocabulary, (2, 32), generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        return model(input_ids=tokens.to(model.device)).logits.float()


def relative_error(found: "torch.Tensor", expected: "torch.Tensor") -> float:
    """‖found − expected‖ / ‖expected‖."""
    return ((found - expected).norm() / expected.norm()).item()
