"""The tuner for ms-swift."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from tools_stand_ins import SWIFT, install
from transformers import AutoModelForCausalLM

from mora_peft.errors import UserError
from mora_peft.tuner import MoraLayer

INSTALLED = find_spec("swift") is not None


@pytest.fixture
def swift(monkeypatch):
    if not INSTALLED:
        install(SWIFT, monkeypatch)
        monkeypatch.delitem(sys.modules, "mora_peft.integrations.swift", raising=False)
    module = import_module("mora_peft.integrations.swift")
    yield module
    if not INSTALLED:
        del sys.modules["mora_peft.integrations.swift"]


def arguments(**options) -> SimpleNamespace:
    """What ms-swift hands a tuner, with its own defaults."""
    defaults = {
        "task_type": "causal_lm",
        "lora_rank": 8,
        "lora_alpha": 32.0,
        "lora_dropout": 0.05,
        "lora_bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "target_modules": ["all-linear"],
        "target_parameters": None,
        "modules_to_save": [],
    }
    return SimpleNamespace(**defaults | options)


def test_a_model_gets_the_adapter_that_the_arguments_and_the_plugin_describe(swift, tiny_model):
    from swift.tuner_plugin import PeftTuner, tuners_map

    swift.register(operator="sharing", scaling=0.5)
    tuner = tuners_map["mora"]
    assert issubclass(tuner, PeftTuner)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    base.model_meta = SimpleNamespace(is_multimodal=False, model_arch=None)
    model = tuner.prepare_model(arguments(lora_rank=2, modules_to_save=["lm_head"]), base)
    config = model.peft_config["default"]
    assert (config.r, config.operator, config.scaling, config.mora_dropout) == (2, "sharing", 0.5, 0.05)
    assert (config.task_type, config.modules_to_save) == ("CAUSAL_LM", ["lm_head"])
    assert sum(isinstance(layer, MoraLayer) for layer in model.modules()) == 14


def test_dora_is_refused(swift, tiny_model):
    from swift.tuner_plugin import tuners_map

    swift.register()
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    base.model_meta = SimpleNamespace(is_multimodal=False, model_arch=None)
    with pytest.raises(UserError, match="MoRA has no use_dora"):
        tuners_map["mora"].prepare_model(arguments(use_dora=True), base)
