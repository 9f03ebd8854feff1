"""What the plugins use of Axolotl and ms-swift, for where these are not installed: the real names and signatures.

Written from Axolotl 0.19.0 and ms-swift 4.6.0; `test_contracts.py` compares them with the source of these.
"""

import sys
from dataclasses import dataclass
from logging import getLogger
from types import ModuleType
from typing import Any

import torch


@dataclass(frozen=True)
class AdapterCapabilities:
    name: str
    lora_like: bool = False
    relora: bool = False


class BasePlugin:
    def register(self, cfg): ...

    def get_input_args(self): ...

    def get_adapter_capabilities(self): ...

    def load_adapter(self, model, cfg, inference=False, config_only=False): ...


class ModelLoader:
    """Notes under which name the adapter went when a base was to be quantized."""

    def __init__(self, cfg: Any) -> None:
        self.cfg, self.seen = cfg, []

    def _set_quantization_config(self):
        self.seen.append(self.cfg.adapter)

    def _prepare_model_for_quantization(self):
        self.seen.append(self.cfg.adapter)
        if self.cfg.broken:
            raise RuntimeError("broken")


def find_all_linear_names(model):
    names = {name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    return list(names - {"lm_head"})


class PeftTuner:
    @staticmethod
    def prepare_model(args, model): ...

    @staticmethod
    def save_pretrained(model, save_directory, state_dict=None, safe_serialization=True, **kwargs): ...

    @staticmethod
    def from_pretrained(model, model_id, **kwargs): ...


def get_target_modules(args, model):
    return find_all_linear_names(model) if "all-linear" in args.target_modules else args.target_modules


def get_modules_to_save(args, model, task_type=None):
    return list(args.modules_to_save)


#: Modules by name, with what is taken from each.
AXOLOTL = {
    "axolotl.integrations.base": {"AdapterCapabilities": AdapterCapabilities, "BasePlugin": BasePlugin},
    "axolotl.utils.logging": {"get_logger": getLogger},
    "axolotl.loaders.model": {"ModelLoader": ModelLoader},
    "axolotl.loaders.adapter": {"find_all_linear_names": find_all_linear_names},
}
SWIFT = {
    "swift.tuner_plugin": {"PeftTuner": PeftTuner, "tuners_map": {}},
    "swift.pipelines.train.tuner": {
        "get_target_modules": get_target_modules,
        "get_modules_to_save": get_modules_to_save,
    },
}


def install(modules: dict[str, dict[str, Any]], monkeypatch) -> None:
    """Put the stand-ins, and the packages that they are in, among the imported modules until the test ends."""
    for name, content in modules.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, ModuleType(package))
        for key, value in content.items():
            setattr(sys.modules[name], key, value)
