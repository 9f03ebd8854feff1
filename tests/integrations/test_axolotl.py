"""The plugin for Axolotl: its keys, what it refuses, the adapter that it makes; and runs where Axolotl is installed."""

import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from pydantic import ValidationError
from tools_stand_ins import AXOLOTL, install
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from mora_peft import MoraConfig
from mora_peft.tuner import MoraLayer

INSTALLED = find_spec("axolotl") is not None
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Cfg(dict):
    """Axolotl's configuration: None for what is not in it."""

    __getattr__ = dict.get
    __setattr__ = dict.__setitem__


@pytest.fixture
def plugin_module(monkeypatch):
    if not INSTALLED:
        install(AXOLOTL, monkeypatch)
        monkeypatch.delitem(sys.modules, "mora_peft.integrations.axolotl", raising=False)
    module = import_module("mora_peft.integrations.axolotl")
    yield module
    if not INSTALLED:
        del sys.modules["mora_peft.integrations.axolotl"]


@pytest.fixture
def plugin(plugin_module):
    return plugin_module.MoraPlugin()


def test_it_says_what_it_is(plugin, plugin_module):
    assert [capability.name for capability in plugin.get_adapter_capabilities()] == ["mora"]
    module, name = plugin.get_input_args().rsplit(".", 1)
    assert getattr(import_module(module), name) is plugin_module.MoraArgs


KEYS = [
    ({}, {}),
    ({"lora_r": 4, "lora_alpha": 16, "lora_dropout": 0.1}, {"r": 4, "mora_dropout": 0.1}),
    ({"mora_operator": "sharing", "mora_layout": "grouped-tiled"}, {"operator": "sharing", "layout": "grouped-tiled"}),
    ({"mora_type": 6}, {"operator": "rotation"}),
    ({"mora_operator": 1, "mora_scaling": 0.5}, {"operator": "sharing", "scaling": 0.5}),
    ({"mora_fold": True}, {"fold": True}),
    ({"lora_target_modules": ["q_proj"]}, {"target_modules": ["q_proj"]}),
    ({"lora_target_linear": True}, {"target_modules": LINEAR}),
    (
        {"lora_target_linear": True, "lora_target_modules": ["embed_tokens"]},
        {"target_modules": [*LINEAR, "embed_tokens"]},
    ),
    ({"lora_modules_to_save": ["lm_head"]}, {"modules_to_save": ["lm_head"]}),
    (
        {"lora_target_modules": ["q_proj"], "peft_layers_to_transform": [0], "lora_rank_pattern": {"q_proj": 2}},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "rank_pattern": {"q_proj": 2}},
    ),
]


@pytest.mark.parametrize(("keys", "expected"), KEYS, ids=str)
def test_the_keys_describe_the_adapter(keys, expected, plugin, plugin_module, tiny_model):
    plugin_module.MoraArgs(adapter="mora", **keys)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model, config = plugin.load_adapter(base, Cfg(adapter="mora", **keys), config_only=True)
    assert model is None
    assert config == MoraConfig(task_type="CAUSAL_LM", **expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mora_operater": "sharing"}, "Unknown key 'mora_operater': did you mean 'mora_operator'?"),
        ({"mora_operator": "shearing"}, "shearing"),
        ({"mora_type": 5}, "Unknown `mora_type` 5"),
        ({"mora_operator": "truncation", "mora_fold": True}, "fold"),
        ({"lora_r": 0}, "`r` should be a positive integer"),
        ({"peft_use_dora": True}, "MoRA has no use_dora"),
        ({"peft_use_rslora": True}, "MoRA has no use_rslora"),
        ({"lora_alpha_pattern": {"q_proj": 4}}, "MoRA has no alpha_pattern"),
        ({"lora_mlp_kernel": True}, "`lora_mlp_kernel` is for LoRA only"),
        ({"loraplus_lr_ratio": 16}, "`loraplus_lr_ratio` is for LoRA only"),
        ({"load_in_4bit": True, "fsdp_config": {"fsdp_version": 2}}, "does not run under FSDP on a 4-bit base"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(keys, message, plugin_module):
    with pytest.raises(ValidationError) as error:
        plugin_module.MoraArgs(adapter="mora", **keys)
    assert message in str(error.value)


def test_other_adapters_are_left_to_axolotl(plugin, plugin_module):
    plugin_module.MoraArgs(adapter="lora", peft_use_dora=True, lora_mlp_kernel=True)
    assert plugin.load_adapter(None, Cfg(adapter="lora")) is None


def test_the_adapter_is_put_on_and_loaded_again(plugin, tiny_model, tmp_path):
    tokens = torch.arange(1, 13).view(1, 12)
    cfg = Cfg(adapter="mora", lora_r=2, lora_target_linear=True, mora_operator="sharing")
    model, config = plugin.load_adapter(AutoModelForCausalLM.from_pretrained(tiny_model), cfg)
    assert isinstance(model, PeftModel)
    assert isinstance(config, MoraConfig)
    layers = [layer for layer in model.modules() if isinstance(layer, MoraLayer)]
    assert layers
    for layer in layers:
        torch.nn.init.normal_(layer.mora_M["default"])
    model.save_pretrained(tmp_path)
    for inference in (False, True):
        cfg.lora_model_dir = str(tmp_path)
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        loaded, _ = plugin.load_adapter(base, cfg, inference=inference)
        assert any(parameter.requires_grad for parameter in loaded.parameters()) is not inference
        assert torch.equal(loaded.eval()(tokens).logits, model.eval()(tokens).logits)


def test_merging_goes_by_the_model_and_not_by_loras_files(plugin_module):
    checked = plugin_module.MoraArgs.check_mora({"adapter": "mora", "merge_lora": True})
    assert checked["merge_method"] == "legacy"


@pytest.mark.skipif(INSTALLED, reason="the stand-in notes what the real loader does")
@pytest.mark.parametrize(
    ("bits", "name"), [({"load_in_4bit": True}, "qlora"), ({"load_in_8bit": True}, "lora"), ({}, "lora")]
)
def test_a_base_is_quantized_as_it_is_for_lora(bits, name, plugin, monkeypatch):
    from axolotl.loaders.model import ModelLoader

    for method in ("_set_quantization_config", "_prepare_model_for_quantization"):
        monkeypatch.setattr(ModelLoader, method, getattr(ModelLoader, method))  # so that it is put back
    plugin.register({"adapter": "mora"})
    plugin.register({"adapter": "mora"})
    loader = ModelLoader(Cfg(adapter="mora", **bits))
    loader._set_quantization_config()
    loader.cfg.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        loader._prepare_model_for_quantization()
    assert loader.seen == [name, name]
    assert loader.cfg.adapter == "mora"
    other = ModelLoader(Cfg(adapter="llama-adapter"))
    other._set_quantization_config()
    assert other.seen == ["llama-adapter"]


@pytest.mark.skipif(not INSTALLED, reason="Axolotl is not installed here")
@pytest.mark.parametrize("bits", [{}, {"load_in_4bit": True}, {"load_in_8bit": True}], ids=str)
def test_axolotl_trains_with_it(bits, tiny_model, tmp_path):
    rows = [{"text": f"Person {number} was born in Corstad."} for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "base_model": tiny_model,
        "plugins": ["mora_peft.integrations.axolotl.MoraPlugin"],
        "adapter": "mora",
        "lora_r": 2,
        "lora_alpha": 16,
        "lora_target_linear": True,
        "mora_operator": "sharing",
        "datasets": [{"path": str(tmp_path / "rows.jsonl"), "ds_type": "json", "type": "completion"}],
        "output_dir": str(tmp_path / "out"),
        "sequence_len": 128,
        "max_steps": 2,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.01,
        "optimizer": "adamw_torch",
        "attn_implementation": "eager",
    } | bits
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    axolotl("train", tmp_path)
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert any(layer.mora_M["default"].any() for layer in model.modules() if isinstance(layer, MoraLayer))
    axolotl("merge_lora", tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged", dtype=torch.float32)
    for name, weight in model.merge_and_unload().state_dict().items():
        assert_close(merged.state_dict()[name], weight, rtol=0.02, atol=0.002)  # Axolotl saves 16 bits


def axolotl(command: str, folder: Path) -> None:
    words = [sys.executable, "-m", f"axolotl.cli.{command}", str(folder / "config.yaml")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
