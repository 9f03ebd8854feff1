"""Base models and tokenizers, from a folder or the hub."""

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


def load_base(name: str, dtype: "torch.dtype") -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A causal language model in `dtype` and its tokenizer, which gets a padding token if it has none.

    Raises UserError where `name` is neither a folder with a model nor one that the hub knows.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        raise UserError(f"The model {name} could not be loaded: {_first_line(error)}") from error
    return model, load_tokenizer(name)


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of `name`, with its end of text as padding if it has no padding token of its own."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer of {name} could not be loaded: {_first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
