"""32 tokens, each with its own adapter, through one layer (576 to 1536 features) over PEFT LoRA's at equal r.

`python benchmarks/mixed_batch.py` writes benchmarks/results/mixed_batch.json.
"""

import _common  # first: sets the number of threads
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from mora_peft import MoraConfig

ADAPTERS = 32


def main() -> None:
    torch.set_num_threads(1)
    x = torch.randn(ADAPTERS, 1, 576)
    names = [f"a{i}" for i in range(ADAPTERS)]
    configs = {
        "lora": lambda: LoraConfig(r=8, target_modules=["0"]),
        "sharing": lambda: MoraConfig(r=8, operator="sharing", target_modules=["0"]),
        "rotation": lambda: MoraConfig(r=8, operator="rotation", target_modules=["0"]),
    }
    cases = {}
    for name, config in configs.items():
        model = get_peft_model(nn.Sequential(nn.Linear(576, 1536)), config(), adapter_name=names[0])
        for adapter in names[1:]:
            model.add_adapter(adapter, config())
        layer = model.eval().base_model.model[0]
        cases[name] = lambda layer=layer: layer(x, adapter_names=names)
    with torch.inference_mode():
        seconds = _common.interleaved(cases, 101)
    _common.save("mixed_batch", {"over_lora": _common.ratios(seconds, "lora")})


if __name__ == "__main__":
    main()
