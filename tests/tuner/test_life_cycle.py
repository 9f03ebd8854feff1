"""An adapter's life on real architectures: made, saved, loaded, swapped, switched off, copied, deleted."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, adapted, add, base_weights, inputs, logits, mora_config, mora_layers, same
from torch.testing import assert_close

from mora_peft.tuner import MoraLinear

WITH_EMBEDDINGS = ("embed_tokens.base_layer.weight", "lm_head.base_layer.weight")
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


@every_architecture
def test_a_new_adapter_changes_nothing_and_trains_M_alone(name):
    base = ARCHITECTURES[name].build()
    expected = logits(base, name)
    model = get_peft_model(base, mora_config(name, init_weights=True, task_type=None)).eval()
    assert torch.equal(logits(model, name), expected)
    trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {f"{key}.mora_M.default" for key in mora_layers(model)}
    model.train()(**inputs(name)).logits.square().mean().backward()
    assert all(model.get_parameter(key).grad.any() for key in trainable)


@every_architecture
def test_what_is_saved(name, tmp_path):
    """Safetensors only, each M once, under names that end in `mora_M`."""
    model = adapted(name)
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    stored = load_file(tmp_path / "adapter_model.safetensors")
    matrices = {key: tensor for key, tensor in stored.items() if "mora_M" in key}
    assert set(matrices) == {f"{key}.mora_M" for key in mora_layers(model)}
    for key, layer in mora_layers(model).items():
        assert torch.equal(matrices[f"{key}.mora_M"], layer.mora_M["default"])
    # PEFT saves a new classification head whole, and the base's table of embeddings with an adapter of it.
    others = {key.removeprefix("base_model.model.") for key in set(stored) - set(matrices)}
    assert all(key.startswith("classifier.") or key.endswith(WITH_EMBEDDINGS) for key in others)


@every_architecture
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_what_is_loaded_is_what_was_saved(name, low_cpu_mem_usage, tmp_path):
    model = adapted(name, operator="sharing", scaling=0.5, rank_pattern={ARCHITECTURES[name].targets[0]: 1})
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(ARCHITECTURES[name].build(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded.eval(), name), logits(model, name))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    trainable = PeftModel.from_pretrained(ARCHITECTURES[name].build(), tmp_path, is_trainable=True)
    assert all(layer.mora_M["default"].requires_grad for layer in mora_layers(trainable).values())


def test_a_fresh_process_loads_adapters_after_one_import(tmp_path):
    expected = {}
    for name, architecture in ARCHITECTURES.items():
        architecture.build().save_pretrained(tmp_path / name / "base")
        base = architecture.auto.from_pretrained(tmp_path / name / "base")
        torch.manual_seed(1)
        model = get_peft_model(base, mora_config(name)).eval()
        model.save_pretrained(tmp_path / name / "adapter")
        expected[name] = (inputs(name), logits(model, name), architecture.task_type)
    torch.save(expected, tmp_path / "expected.pt")
    program = f"""
        import mora_peft
        import pathlib, peft, torch, transformers
        folder = pathlib.Path({str(tmp_path)!r})
        autos = {{
            "CAUSAL_LM": peft.AutoPeftModelForCausalLM,
            "SEQ_2_SEQ_LM": peft.AutoPeftModelForSeq2SeqLM,
            "SEQ_CLS": peft.AutoPeftModelForSequenceClassification,
        }}
        for name, (inputs, logits, task_type) in torch.load(folder / "expected.pt").items():
            auto = autos.get(task_type, peft.AutoPeftModel)
            loaded = [auto.from_pretrained(folder / name / "adapter")] if task_type else []
            base = transformers.AutoConfig.from_pretrained(folder / name / "base").architectures[0]
            base = getattr(transformers, base).from_pretrained(folder / name / "base")
            loaded.append(peft.PeftModel.from_pretrained(base, folder / name / "adapter"))
            for model in loaded:
                with torch.no_grad():
                    torch.testing.assert_close(model.eval()(**inputs).logits, logits)
            print(name, type(loaded[-1].base_model).__name__)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} MoraModel" for name in ARCHITECTURES]


@every_architecture
def test_adapters_are_added_set_deleted_and_loaded_again(name, tmp_path):
    model = adapted(name)
    first = logits(model, name)
    add(model, "other", name, operator="sharing")
    assert torch.equal(logits(model, name), first)
    model.set_adapter("other")
    other = logits(model, name)
    assert not torch.allclose(other, first, atol=1e-3)
    model.save_pretrained(tmp_path, selected_adapters=["other"])
    model.delete_adapter("other")
    assert not any("other" in layer.mora_M for layer in mora_layers(model).values())
    model.set_adapter("default")
    assert torch.equal(logits(model, name), first)
    model.load_adapter(tmp_path / "other", "again")
    model.set_adapter("again")
    assert torch.equal(logits(model.eval(), name), other)


@every_architecture
def test_a_disabled_adapter_has_no_effect(name):
    base = ARCHITECTURES[name].build()
    model = adapted(name, task_type=None)
    with_adapter, without = logits(model, name), logits(base, name)
    assert not torch.allclose(with_adapter, without, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), without)
    assert torch.equal(logits(model, name), with_adapter)


@every_architecture
def test_disabling_while_merged_leaves_the_weights_alone(name):
    model = adapted(name)
    with model.disable_adapter():
        without = logits(model, name)
    with_adapter = logits(model, name)
    model.merge_adapter()
    merged = base_weights(model)
    with model.disable_adapter():
        assert_close(logits(model, name), without, rtol=1e-3, atol=1e-4)
        assert same(base_weights(model), merged)
    assert same(base_weights(model), merged)
    assert_close(logits(model, name), with_adapter, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("operators", [("rotation", "sharing"), ("truncation", "rotation")])
def test_two_active_adapters_each_see_x_through_their_own_dropout(operators):
    model = adapted("llama", operator=operators[0], mora_dropout=0.5, scaling=0.5)
    add(model, "other", "llama", operator=operators[1], mora_dropout=0.25)
    model.base_model.set_adapter(["default", "other"])
    layer = next(iter(mora_layers(model).values()))
    x = torch.randn(2, 9, layer.in_features)
    for training in (True, False):
        layer.train(training)
        torch.manual_seed(3)
        found = layer(x)
        torch.manual_seed(3)
        expected = layer.get_base_layer()(x)
        for adapter in ("default", "other"):
            dropped = torch.nn.functional.dropout(x, layer.mora_dropout[adapter].p, training)
            expected = expected + dropped @ layer.get_delta_weight(adapter).T
        assert_close(found, expected)


@every_architecture
def test_weights_are_swapped_in_place(name):
    model = adapted(name)
    other = adapted(name, seed=5)
    before = logits(model, name)
    pointers = [layer.mora_M["default"].data_ptr() for layer in mora_layers(model).values()]
    set_peft_model_state_dict(model, get_peft_model_state_dict(other))
    assert not torch.equal(logits(model, name), before)
    assert torch.equal(logits(model, name), logits(other, name))
    assert pointers == [layer.mora_M["default"].data_ptr() for layer in mora_layers(model).values()]


@every_architecture
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_are_independent(name, way, tmp_path):
    model = adapted(name)
    expected = logits(model, name)
    if way == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        torch.save(model, tmp_path / "model.pt")
        twin = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(logits(twin, name), expected)
    twin.merge_adapter()
    for layer in mora_layers(twin).values():
        torch.nn.init.zeros_(layer.mora_M["default"])
    assert torch.equal(logits(model, name), expected)


def test_a_shallow_copy_shares_the_weights():
    model = adapted("llama")
    twin = copy.copy(model)
    assert torch.equal(logits(twin, "llama"), logits(model, "llama"))
    assert all(mine is yours for mine, yours in zip(model.parameters(), twin.parameters(), strict=True))


@every_architecture
def test_scaling_is_a_factor_on_delta_weight(name):
    model, plain = adapted(name, scaling=0.5), adapted(name)
    for layer, reference in zip(mora_layers(model).values(), mora_layers(plain).values(), strict=True):
        if not isinstance(layer, MoraLinear):
            assert_close(layer.get_delta_weight("default"), 0.5 * reference.get_delta_weight("default"))
            continue
        delta = reference.get_delta_weight("default")
        x = torch.randn(20, layer.in_features)

        def factor_is(factor, layer=layer, delta=delta, x=x):
            assert_close(layer.get_delta_weight("default"), factor * delta)
            base = layer.get_base_layer()(x)
            dense = delta if not layer._transposed else delta.T
            assert_close(layer(x) - base, factor * x @ dense.T, rtol=1e-3, atol=1e-4)

        factor_is(0.5)
        layer.set_scale("default", 3.0)
        factor_is(1.5)
        layer.scale_layer(2.0)
        factor_is(3.0)
        layer.unscale_layer(4.0)
        factor_is(0.75)
        layer.unscale_layer()
        factor_is(0.5)
        layer.set_scale("absent", 9.0)
        factor_is(0.5)


def test_a_checkpoint_of_another_width_is_refused_by_name(tmp_path):
    adapted("llama", r=4).save_pretrained(tmp_path)
    model = adapted("llama", r=1)
    with pytest.raises(RuntimeError, match=r"size mismatch for .*mora_M"):
        set_peft_model_state_dict(model, {k: v for k, v in load_file(tmp_path / "adapter_model.safetensors").items()})
