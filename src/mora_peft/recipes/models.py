"""Base models and tokenizers, from a folder or the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from mora_peft.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def resolve_dtype(name: str) -> "torch.dtype":
    """The torch dtype of a `dtype` setting; `auto` is bfloat16 where the hardware computes in it, float32 elsewhere.

    On a CPU with bfloat16 instructions, training SmolLM2-135M on a bfloat16 base takes 0.6 of the time that float32
    takes; on a CPU without them it takes many times longer.
    """
    import torch

    if name != "auto":
        return getattr(torch, name)
    if torch.accelerator.is_available():
        native = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def is_configuration(name: str) -> bool:
    """Whether `name` is the JSON file of a model's configuration, from which a model without a past is made.

    The weights of such a model are in no other file, so what is trained on it must be saved whole.
    """
    return name.endswith(".json")


def load_base(
    name: str, dtype: "torch.dtype | str", tokenizer: str | None = None
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A causal language model in `dtype` and its tokenizer, which gets a padding token if it has none.

    Where `name` is the JSON file of a configuration, the weights are random, the same for every dtype, and hang on
    torch's seed; the tokenizer is the one in the file's folder. `tokenizer` names another, a folder or a hub id.

    Raises UserError where `name` is neither of these, nor a folder with a model, nor one that the hub knows; and where
    the tokenizer has more tokens than the model.
    """
    from transformers import AutoModelForCausalLM

    try:
        if is_configuration(name):
            model = _from_configuration(name, dtype)
        else:
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        raise UserError(f"The model {name} could not be loaded: {_first_line(error)}") from error
    _keep_weights_as_stored(model)
    found = load_tokenizer(tokenizer or name)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(found) > rows:
        raise UserError(
            f"The tokenizer {found.name_or_path} has {len(found)} tokens, but the model {name} only {rows}."
        )
    return model, found


def _keep_weights_as_stored(model: "PreTrainedModel") -> None:
    """Keep bitsandbytes from packing 4-bit weights anew for a CPU with AVX512-BF16 when it first evaluates.

    Packed ones have no backward pass: what is trained beneath them then gets wrong gradients without a word. And
    packing fails where a width is no multiple of 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _from_configuration(name: str, dtype: "torch.dtype | str") -> "PreTrainedModel":
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(name)
    config.name_or_path = ""  # an adapter must not say that this file is its base: the next model from it is another
    # Drawn in float32 and rounded, because random numbers drawn in another dtype are other numbers.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.to(config.dtype or torch.float32 if dtype == "auto" else dtype)


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of `name`, with its end of text as padding if it has no padding token of its own.

    Where `name` is a configuration, it is the one in the file's folder. Raises UserError where there is none.
    """
    from transformers import AutoTokenizer

    name = str(Path(name).parent) if is_configuration(name) else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer of {name} could not be loaded: {_first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
