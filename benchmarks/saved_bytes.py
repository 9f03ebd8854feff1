"""Bytes that the adapted layers of one decoder layer keep for backward, over LoRA's: SmolLM2, r=8, 4x128 tokens.

`python benchmarks/saved_bytes.py` writes benchmarks/results/saved_bytes.json. Counted are the distinct
storages that autograd keeps in those layers' forward passes, parameters left out.
"""

import _common  # first: sets the number of threads
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import LlamaConfig, LlamaForCausalLM

from mora_peft import MoraConfig


def kept(config, dtype: torch.dtype) -> int:
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=1, **shape)).to(dtype)
    model = get_peft_model(model, config).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}
    alive = []  # a freed storage's address would be used again

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            alive.append(tensor)
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.forward = hooked(layer.forward, pack)
    model(inputs_embeds=torch.randn(4, 128, 576, dtype=dtype, requires_grad=True))
    return sum(seen.values())


def hooked(forward, pack):
    def run(*args, **kwargs):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return forward(*args, **kwargs)

    return run


def main() -> None:
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        configs = {"lora": LoraConfig(r=8, target_modules="all-linear")}
        for operator in ("sharing", "rotation"):
            configs[operator] = MoraConfig(r=8, operator=operator, target_modules="all-linear")
        saved = {name: kept(config, dtype) for name, config in configs.items()}
        results[str(dtype).removeprefix("torch.")] = {
            name: {"bytes": value, "over_lora": round(value / saved["lora"], 3)} for name, value in saved.items()
        }
    _common.save("saved_bytes", results)


if __name__ == "__main__":
    main()
