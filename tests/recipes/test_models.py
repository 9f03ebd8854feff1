"""Models from a configuration: random but repeatable weights, and a tokenizer that fits."""

import json
from pathlib import Path

import pytest
import torch

from mora_peft.errors import UserError
from mora_peft.recipes.models import load_base, load_tokenizer


def seeded(name: str, dtype="float32", seed: int = 0, **options):
    torch.manual_seed(seed)
    return load_base(name, dtype if dtype == "auto" else getattr(torch, dtype), **options)[0]


@pytest.fixture
def configuration(tiny_model, tmp_path) -> str:
    """The configuration of the tiny model alone, in a folder without a tokenizer or weights."""
    file = tmp_path / "llama.json"
    file.write_bytes((Path(tiny_model) / "config.json").read_bytes())
    return str(file)


def test_a_configuration_gives_random_weights_that_hang_on_the_seed(configuration, tiny_model):
    options = {"tokenizer": tiny_model}
    first, again, other = (seeded(configuration, seed=seed, **options) for seed in (0, 0, 1))
    half = seeded(configuration, "bfloat16", **options)
    assert half.dtype == torch.bfloat16 and seeded(configuration, "auto", **options).dtype == torch.float32
    loaded = load_base(tiny_model, torch.float32)[0]
    assert first.name_or_path == "" != loaded.name_or_path
    name = "model.layers.0.mlp.up_proj.weight"
    weights = [model.state_dict()[name] for model in (first, again, other, half, loaded)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(weights[0].bfloat16(), weights[3])
    assert weights[0].shape == weights[4].shape


def test_the_tokenizer_is_beside_the_configuration_or_named(configuration, tiny_model):
    expected = load_tokenizer(tiny_model).get_vocab()
    assert load_base(str(Path(tiny_model) / "config.json"), torch.float32)[1].get_vocab() == expected
    assert load_base(configuration, torch.float32, tiny_model)[1].get_vocab() == expected
    with pytest.raises(UserError, match="tokenizer of"):
        load_base(configuration, torch.float32)


def test_a_tokenizer_with_too_many_tokens_is_refused(configuration, tiny_model):
    fields = json.loads(Path(configuration).read_text()) | {"vocab_size": 100}
    Path(configuration).write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"has 257 tokens, but the model .*llama\.json only 100"):
        load_base(configuration, torch.float32, tiny_model)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "abacus"}', "{}"])
def test_what_is_no_configuration_gets_one_sentence(text, tmp_path, tiny_model):
    file = tmp_path / "model.json"
    file.write_text(text)
    for name in (str(file), str(tmp_path / "gone.json")):
        with pytest.raises(UserError, match=r"model .*\.json could not be loaded") as raised:
            load_base(name, torch.float32, tiny_model)
        assert "\n" not in str(raised.value)
