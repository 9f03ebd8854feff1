"""QMoRA on SmolLM2-135M: what each quantized base takes, and a training step on it; MoRA r=8 on all linear layers.

`python benchmarks/quantized.py [CASE ...]` writes benchmarks/results/quantized.json, each case as soon as it is
measured, beside those that are there; without a name, all cases. A base that is stored quantized is counted tensor by
tensor after it was loaded; a step is one row of 128 tokens with AdamW, whose peak is the resident memory of a process
of its own above that before the base was loaded, read every two milliseconds. `plan` is what `mora inspect --plan` says
of the same step. Merging adds ΔW of a trained size (a twentieth of W's) and quantizes again; its error is
how much of the adapter's effect on the logits is lost to the few bits. What is not installed is left out.
"""

import gc
import importlib.util
import json
import subprocess
import sys
import threading
import time

import _common  # first: sets the number of threads
import plan
import torch
from peft import get_peft_model
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from mora_peft import MoraConfig
from mora_peft.tuner import MoraLayer

ROWS, TOKENS = 1, 128
#: All linear layers: what PEFT's "all-linear" finds leaves those of hqq out.
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def torchao(kind: str) -> TorchAoConfig:
    from torchao import quantization

    return TorchAoConfig(quant_type=getattr(quantization, kind)())


def nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=torch.bfloat16)  # fmt: skip


#: By library and kind: what Transformers is told, and what `mora inspect --quantization` calls it.
CASES = {
    "transformers bfloat16": (lambda: None, "none"),
    "bitsandbytes nf4": (nf4, "nf4"),
    "bitsandbytes int8": (lambda: BitsAndBytesConfig(load_in_8bit=True), "int8"),
    "torchao int8 weights": (lambda: torchao("Int8WeightOnlyConfig"), "int8"),
    "torchao int8 weights and activations": (lambda: torchao("Int8DynamicActivationInt8WeightConfig"), "int8"),
    "hqq int4": (lambda: None, None),
}


def load(case: str) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(plan.MODEL, dtype=torch.bfloat16, quantization_config=CASES[case][0]())
    return in_place(model) if case.startswith("hqq") else model


def in_place(model: nn.Module) -> nn.Module:
    """hqq's own way: Transformers 5.19 does not load a model with it."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    linear = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    for name, module in linear:
        if name != "lm_head":
            settings = BaseQuantizeConfig(nbits=4, group_size=64)
            model.set_submodule(name, HQQLinear(module, settings, compute_dtype=torch.bfloat16, device="cpu"))
    return model


def living() -> dict[int, int]:
    """Bytes of every storage that a tensor uses, by its address."""
    gc.collect()
    tensors = [value for value in gc.get_objects() if issubclass(type(value), torch.Tensor)]
    # What torchao's tensors are made of is among the tensors itself.
    storages = [tensor.untyped_storage() for tensor in tensors if not is_traceable_wrapper_subclass(tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def measure(case: str) -> dict[str, float]:
    found, most, done = {}, 0, threading.Event()
    before = plan.resident()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, plan.resident())
            time.sleep(0.002)

    model = load(case)
    found["stored"] = sum(living().values())
    torch.manual_seed(0)
    model = get_peft_model(model, MoraConfig(r=8, target_modules=TARGETS, task_type="CAUSAL_LM")).train()
    watcher = threading.Thread(target=watch)
    watcher.start()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.randint(0, 49152, (ROWS, TOKENS))
    for _ in range(2):
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    done.set()
    watcher.join()
    return found | {"peak": most - before, "merge_error": lost_by_merging(model, ids)}


@torch.no_grad()
def lost_by_merging(model: nn.Module, ids: torch.Tensor) -> float:
    """‖merged − adapted‖ / ‖adapted − base‖ of the logits, where each ΔW is a twentieth of its W in norm."""
    for layer in (module for module in model.modules() if isinstance(module, MoraLayer)):
        M, W = layer.mora_M["default"], layer.get_base_weight()
        M.normal_()
        M.mul_(W.float().norm() / layer.get_delta_weight("default").norm() / 20)
    adapted = model(input_ids=ids).logits.float()
    with model.disable_adapter():
        base = model(input_ids=ids).logits.float()
    model.merge_adapter()
    merged = model(input_ids=ids).logits.float()
    return ((merged - adapted).norm() / (adapted - base).norm()).item()


def main(cases: list[str]) -> None:
    file = _common.RESULTS / "quantized.json"
    rows = json.loads(file.read_text())["results"] if file.is_file() else {}
    for case in cases or CASES:
        if not importlib.util.find_spec(case.split()[0]):
            continue
        command = [sys.executable, __file__, "--child", case]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        if quantization := CASES[case][1]:
            planned = plan.planned(plan.MODEL, ROWS, TOKENS, "bfloat16", False, quantization)
            found |= {"planned_stored": planned.weights, "planned_peak": planned.total}
        rows[case] = {name: round(value, 3) for name, value in found.items()}
        _common.save("quantized", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:])
