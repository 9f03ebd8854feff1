"""Adapters as files: read, checked and put on their base, with one clear sentence for whatever is wrong."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mora_peft.errors import UserError
from mora_peft.tuner.files import CONFIG, PICKLE, WEIGHTS, line_of, read_config, read_weights

from .models import load_base

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, read and whole: its configuration and its tensors by name."""

    folder: Path
    config: "PeftConfig"
    tensors: dict[str, "torch.Tensor"]

    def base(self, given: str | None = None) -> str:
        """The base model `given`, or the one that the adapter was trained on."""
        name = given or self.config.base_model_name_or_path
        if not name:
            raise UserError(
                f"{self.folder / CONFIG} does not name the base model: fill in base_model_name_or_path there."
            )
        return name


def is_adapter(name: str) -> bool:
    """Whether `name` is the folder of an adapter, whole or damaged, rather than a model."""
    folder = Path(name)
    return any((folder / file).is_file() for file in (CONFIG, WEIGHTS, PICKLE))


def read_adapter(folder: str | Path) -> Adapter:
    """The adapter in `folder`.

    Raises UserError where the configuration or the weights are missing, unreadable, cut short, or a pickle, and where
    the adapter is of another model than a causal language model.
    """
    from peft import PeftConfig

    import mora_peft  # noqa: F401  (registers MoRA with PEFT)

    folder = Path(folder)
    read_config(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} is not the configuration of a PEFT adapter ({line_of(error)}).") from error
    if config.task_type not in (None, "CAUSAL_LM"):
        raise UserError(
            f"{folder} is an adapter for {config.task_type}, and `mora` works with causal language models: load it in "
            "Python with PeftModel.from_pretrained, and merge it with merge_and_unload."
        )
    return Adapter(folder, config, read_weights(folder))


def put_on(adapter: Adapter, base: "PreTrainedModel") -> "PeftModel":
    """`adapter` on `base`, in evaluation mode; UserError where it has other layers, keys or shapes than `base`."""
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # said below, as an error
            model = PeftModel.from_pretrained(base, str(adapter.folder))
    except RuntimeError as error:
        found = re.search(r"size mismatch for (\S+): .*?(\[[^\]]*\]).*?(\[[^\]]*\])", str(error), re.DOTALL)
        if not found:
            raise
        raise UserError(
            f"The adapter {adapter.folder} does not fit the base model {base.name_or_path}: {found[1]} has the shape "
            f"{found[2]} where the base needs {found[3]}; give the model that it was trained on."
        ) from error
    except ValueError as error:
        raise UserError(f"The adapter {adapter.folder} does not fit {base.name_or_path}: {line_of(error)}") from error
    check_keys(adapter, set(get_peft_model_state_dict(model, save_embedding_layers=False)))
    return model.eval()


def go_on_from(model: "PeftModel", folder: Path) -> None:
    """Put the weights of the adapter in `folder` into the adapter of `model`; UserError where they do not fit it."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    adapter = read_adapter(folder)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    check_keys(adapter, set(own))
    other = next((key for key, tensor in own.items() if tensor.shape != adapter.tensors[key].shape), None)
    if other is not None:
        raise UserError(
            f"The adapter {folder} is of another size: {other} has the shape {[*adapter.tensors[other].shape]} where "
            f"{[*own[other].shape]} is trained; give it the r and the options that it was made with."
        )
    set_peft_model_state_dict(model, adapter.tensors)


@contextmanager
def beneath(model: "torch.nn.Module") -> Iterator[None]:
    """Let `model` answer as the base beneath its adapter, if it has one; what is trained stays what is trained."""
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with getattr(model, "disable_adapter", nullcontext)():
            yield
    finally:
        for parameter, wanted in trained.items():  # PEFT enables all of an adapter, with parts that stay frozen
            parameter.requires_grad_(wanted)


def check_keys(adapter: Adapter, expected: set[str]) -> None:
    """Raise UserError where the adapter's file lacks tensors that it should have, or has others."""
    path, found = adapter.folder / WEIGHTS, set(adapter.tensors)
    for kind, keys in (("lacks", expected - found), ("has the unknown", found - expected)):
        # Embedding and output layers that were saved beside the adapter are no part of it.
        keys = sorted(
            key
            for key in keys
            if ".base_layer." not in key and ("embed" not in key or "lora" in key or "prompt" in key)
        )
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise UserError(f"{path} {kind} {keys[0]}{more}: it does not belong to its {CONFIG}, or to this base.")


def load_adapter(
    folder: str, base: str | None = None, dtype: "torch.dtype | str" = "auto"
) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
    """The adapter in `folder`, checked, on its base (or on `base`) in `dtype`, and the base's tokenizer."""
    adapter = read_adapter(folder)
    model, tokenizer = load_base(adapter.base(base), dtype)
    return put_on(adapter, model), tokenizer


def skeleton(name: str) -> "PreTrainedModel":
    """The causal language model `name` without its weights: layers and shapes alone, on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name))
    except (OSError, ValueError) as error:
        raise UserError(f"The model {name} could not be read: {line_of(error)}") from error


def linear_shapes(name: str, *, output: bool = True) -> dict[str, tuple[int, int]]:
    """Inputs and outputs (k, d) of the linear layers of the model `name` by name, read without its weights.

    `output=False` leaves out the layer that gives the logits.
    """
    from peft.tuners.tuners_utils import _get_in_out_features
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    model = skeleton(name)
    left_out = None if output else model.get_output_embeddings()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear | Conv1D)}
    return {name: _get_in_out_features(module) for name, module in layers.items() if module is not left_out}


def check_output(output: Path, record: str) -> None:
    """Raise UserError where writing `output` would replace a folder that the same command did not write.

    Args:
        output: The folder to write.
        record: The file that the command leaves in every folder that it writes.
    """
    if output.is_file():
        raise UserError(f"{output} is a file: give a folder for --output.")
    if output.is_dir() and any(output.iterdir()) and not (output / record).is_file():
        raise UserError(f"{output} exists and holds other files: give an empty or new folder for --output.")
