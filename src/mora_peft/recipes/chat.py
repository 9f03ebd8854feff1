"""Talk to a model in the terminal, its base beside its adapter, word by word as they answer."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mora_peft.errors import UserError

from .adapters import is_adapter, load_adapter
from .models import load_base, resolve_dtype

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]


@dataclass
class ChatConfig:
    """Talk to a model in the terminal. A line is a question; /quit or the end of the input leaves.

    Args:
        model: An adapter's folder, a model's folder, or a hub id.
        base: Let the base model answer every question first, without the adapter.
        question: Ask this, print the answer and leave.
        plain: Give lines to the model as they are, each for itself, even where its tokenizer has a chat template.
        max_new_tokens: Longest answer in tokens.
        temperature: 0 takes the likeliest token always; higher values draw more freely.
        dtype: Of the base model.
    """

    model: str
    base: bool = False
    question: str | None = None
    plain: bool = False
    max_new_tokens: int = 256
    temperature: float = 0.0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}.")
        if not self.temperature >= 0:
            raise UserError(f"temperature must be 0 or more, not {self.temperature}.")


def chat(config: ChatConfig) -> None:
    """Answer `question`, or every line of the input, until /quit, the end of the input, or Ctrl-C at the prompt.

    With a chat template the base and the adapter each remember their own conversation. Raises UserError for a model
    or adapter that cannot be loaded, and for `base` without an adapter.
    """
    from .libraries import quiet_libraries

    quiet_libraries()
    adapted = is_adapter(config.model)
    if config.base and not adapted:
        raise UserError(f"{config.model} is a model without an adapter, so there is no base to put beside it.")
    dtype = resolve_dtype(config.dtype)
    model, tokenizer = load_adapter(config.model, dtype=dtype) if adapted else load_base(config.model, dtype)
    model.eval()
    remembers = bool(tokenizer.chat_template) and not config.plain
    conversations: dict[str, Messages] = {voice: [] for voice in (["base", "adapter"] if config.base else ["model"])}
    for question in [config.question] if config.question is not None else _questions():
        for voice, messages in conversations.items():
            if config.base:
                print(f"{voice}:", flush=True)
            if not remembers:
                messages.clear()
            messages.append({"role": "user", "content": question})
            with model.disable_adapter() if voice == "base" else contextlib.nullcontext():
                answer = _answer(model, tokenizer, messages, config)
            messages.append({"role": "assistant", "content": answer})


def _questions() -> Iterator[str]:
    """Lines of the input that are not empty, up to /quit, its end, or Ctrl-C."""
    prompt = "> " if sys.stdin.isatty() else ""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (line := input(prompt).strip()) != "/quit":
            if line:
                yield line


def _answer(model: "Module", tokenizer: "PreTrainedTokenizerBase", messages: Messages, config: ChatConfig) -> str:
    """The model's answer to the last message, printed as it comes."""
    import torch
    from transformers import GenerationConfig, TextStreamer

    if tokenizer.chat_template and not config.plain:
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
    else:
        inputs = tokenizer(messages[-1]["content"], return_tensors="pt")
    inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
    sampling = {"do_sample": True, "temperature": config.temperature} if config.temperature else {"do_sample": False}
    settings = GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
        **sampling,
    )
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    with torch.no_grad():
        tokens = model.generate(**inputs, generation_config=settings, streamer=streamer)
    return tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
