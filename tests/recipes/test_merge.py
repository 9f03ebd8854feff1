"""Merging: the model on disk answers as the unmerged one does, or is not there; damaged adapters get a sentence."""

import json
import re
import shutil

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from mora_peft import MoraConfig, MoraModel
from mora_peft.cli.main import main
from mora_peft.errors import UserError
from mora_peft.recipes.adapters import load_adapter
from mora_peft.recipes.merge import MergeConfig, merge, probe_logits, relative_error
from mora_peft.recipes.models import load_base

ADAPTERS = {
    "rotation": MoraConfig(r=2, operator="rotation", target_modules="all-linear"),
    "sharing": MoraConfig(r=2, operator="sharing", target_modules="all-linear", scaling=0.5),
    "saves": MoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["o_proj"]),
    "lora": LoraConfig(r=2, target_modules="all-linear"),
}


@pytest.fixture
def adapter(tiny_model, tmp_path, request):
    """The folder of an adapter with random weights on the tiny model: a row of ADAPTERS, rotation by default."""
    torch.manual_seed(1)
    base, _ = load_base(tiny_model, torch.float32)
    model = get_peft_model(base, ADAPTERS[getattr(request, "param", "rotation")])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("adapter", ADAPTERS, indirect=True)
def test_the_merged_model_gives_the_unmerged_logits(adapter, tmp_path, tiny_model):
    unmerged, _ = load_adapter(str(adapter), dtype=torch.float32)
    output = merge(MergeConfig(str(adapter), str(tmp_path / "merged")))
    merged, tokenizer = load_base(str(output), torch.float32)
    expected = probe_logits(unmerged)
    torch.testing.assert_close(probe_logits(merged), expected)
    base, _ = load_base(tiny_model, torch.float32)
    record = json.loads((output / "merge.json").read_text())
    assert record["adapter_effect"] == pytest.approx(relative_error(probe_logits(base), expected))
    assert record["relative_error"] < 1e-3 * record["adapter_effect"]
    assert record["relative_error"] < record["tolerance"]
    assert tokenizer("text")["input_ids"]
    assert not (output / "adapter_config.json").exists()
    merge(MergeConfig(str(adapter), str(output)))  # its own earlier result may be replaced


@pytest.mark.parametrize("targets", [["embed_tokens", "q_proj"], ["lm_head"], ["embed_tokens", "lm_head"]], ids=str)
@pytest.mark.parametrize("as_one", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_and_output_layers_are_merged(tied, as_one, targets, tiny_model, tmp_path):
    """Where the base ties them and the adapter does not, each has weights of its own in the merged model."""
    base, tokenizer = load_base(tiny_model, torch.float32)
    base.config.tie_word_embeddings = tied
    base.tie_weights()
    for thing in (base, tokenizer):
        thing.save_pretrained(tmp_path / "base")
    base, _ = load_base(str(tmp_path / "base"), torch.float32)
    config = MoraConfig(r=2, target_modules=targets, init_weights=False, ensure_weight_tying=as_one)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    unmerged, _ = load_adapter(str(tmp_path / "adapter"), str(tmp_path / "base"), torch.float32)
    expected = probe_logits(unmerged)
    output = merge(MergeConfig(str(tmp_path / "adapter"), str(tmp_path / "merged"), str(tmp_path / "base")))
    merged, _ = load_base(str(output), torch.float32)
    torch.testing.assert_close(probe_logits(merged), expected)
    one = merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert one == (tied and as_one)


def test_adapters_of_other_than_causal_models_are_named(adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"task_type": "SEQ_CLS"}))
    with pytest.raises(UserError, match=r"SEQ_CLS.*merge_and_unload"):
        merge(MergeConfig(str(adapter), str(tmp_path / "merged")))


def test_weights_are_added_in_float32_and_rounded_once(adapter, tmp_path):
    unmerged, _ = load_adapter(str(adapter), dtype=torch.float32)
    merge(MergeConfig(str(adapter), str(tmp_path / "merged"), dtype="bfloat16"))
    found = load_base(str(tmp_path / "merged"), "auto")[0]
    assert found.dtype == torch.bfloat16
    exact = unmerged.merge_and_unload().state_dict()
    for name, weight in found.state_dict().items():
        assert torch.equal(weight, exact[name].to(torch.bfloat16)), name


def test_too_large_an_error_leaves_nothing_behind(adapter, tmp_path):
    with pytest.raises(UserError, match="tolerance"):
        merge(MergeConfig(str(adapter), str(tmp_path / "merged"), dtype="bfloat16", tolerance=1e-9))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_merge_that_loses_the_adapter_is_refused(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(MoraModel, "merge_and_unload", MoraModel.unload)
    with pytest.raises(UserError, match="tolerance"):
        merge(MergeConfig(str(adapter), str(tmp_path / "merged"), tolerance=0.1))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_lost_to_rounding_is_mentioned(adapter, tmp_path, capsys):
    weights = adapter / "adapter_model.safetensors"
    save_file({name: tensor * 1e-4 for name, tensor in load_file(weights).items()}, weights)
    merge(MergeConfig(str(adapter), str(tmp_path / "merged"), dtype="float32"))
    assert "loses much" not in capsys.readouterr().out
    merge(MergeConfig(str(adapter), str(tmp_path / "rounded"), dtype="bfloat16"))
    assert "loses much" in capsys.readouterr().out


def test_a_foreign_folder_is_not_replaced(adapter, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        merge(MergeConfig(str(adapter), str(tmp_path / "mine")))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_what_cannot_be_merged_is_refused(adapter, tiny_model, tmp_path):
    base, _ = load_base(tiny_model, torch.float32)
    prompt = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    prompt.save_pretrained(tmp_path / "prompt")
    with pytest.raises(UserError, match="nothing to merge"):
        merge(MergeConfig(str(tmp_path / "prompt"), str(tmp_path / "merged")))
    quantized = shutil.copytree(tiny_model, tmp_path / "quantized")
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantized / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="quantized"):
        merge(MergeConfig(str(adapter), str(tmp_path / "merged"), base=str(quantized)))
    with pytest.raises(UserError, match="tolerance"):
        MergeConfig("a", "b", tolerance=0.0)


def _tensors(change):
    def damage(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return damage


def _first(tensors):
    return sorted(tensors)[0]


def _cut(folder):
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])


def _config(**fields):
    def damage(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


DAMAGES = {
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), "has no adapter_config.json"),
    "configuration cut short": (lambda f: (f / "adapter_config.json").write_text('{"r": '), "not valid JSON"),
    "unknown method": (_config(peft_type="NOVEL"), "not the configuration of a PEFT adapter"),
    "bad setting": (_config(operator="spiral"), "not the configuration of a PEFT adapter.*spiral"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "weights are missing"),
    "pickle": (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "is a pickle"),
    "pickle in disguise": (lambda f: torch.save({}, f / "adapter_model.safetensors"), "is a pickle"),
    "cut short": (_cut, "damaged or cut short"),
    "empty": (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "damaged or cut short"),
    "missing key": (_tensors(lambda t: t.pop(_first(t))), "lacks"),
    "extra key": (_tensors(lambda t: t.update(novel=torch.ones(2))), "has the unknown novel"),
    "wrong shape": (
        _tensors(lambda t: t.update({_first(t): torch.ones(3, 3)})),
        r"shape \[3, 3\] where the base needs",
    ),
    "other layers": (_config(target_modules=["query"]), "does not fit"),
    "no base": (_config(base_model_name_or_path=None), "fill in base_model_name_or_path"),
    "lost base": (_config(base_model_name_or_path="no/such/model"), "no/such/model could not be"),
}


COMMANDS = {
    "merge": ["merge", "ADAPTER", "--output", "OUTPUT"],
    "convert": ["convert", "--to-lora", "ADAPTER", "--output", "OUTPUT", "--rank", "2"],
    "inspect": ["inspect", "ADAPTER"],
    "chat": ["chat", "ADAPTER", "--question", "Who?"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_adapter_gets_one_sentence(damage, command, adapter, tmp_path, capsys):
    break_it, sentence = DAMAGES[damage]
    break_it(adapter)
    places = {"ADAPTER": str(adapter), "OUTPUT": str(tmp_path / "output")}
    assert main([places.get(word, word) for word in COMMANDS[command]]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"mora {command}: ")
    assert re.search(sentence, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
