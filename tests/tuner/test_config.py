"""MoraConfig: operators by name or number, clear refusals, and what is stored."""

import json

import pytest
import torch
from peft import PeftConfig, get_peft_model
from torch import nn

from mora_peft import MoraConfig
from mora_peft.operators import LAYOUTS, MORA_TYPES, OPERATORS


@pytest.mark.parametrize("number", MORA_TYPES)
@pytest.mark.parametrize("way", ["mora_type", "operator"])
def test_the_authors_numbers_stand_for_names(number, way):
    name, layout = MORA_TYPES[number]
    config = MoraConfig(**{way: number})
    assert (config.operator, config.layout, config.mora_type) == (name, layout, None)
    assert config == MoraConfig(operator=name, layout=layout)


@pytest.mark.parametrize("number", MORA_TYPES)
def test_a_number_may_repeat_what_the_names_say(number):
    name, layout = MORA_TYPES[number]
    assert MoraConfig(mora_type=number, operator=name, layout=layout) == MoraConfig(mora_type=number)
    assert MoraConfig(mora_type=number, operator=number) == MoraConfig(mora_type=number)


def test_defaults():
    assert MoraConfig().operator == "rotation"
    assert MoraConfig(operator="sharing").layout == next(iter(LAYOUTS))


CONFLICTS = [
    ({"mora_type": 6, "operator": "sharing"}, "`mora_type=6` is the operator 'rotation'.*give one of them"),
    ({"mora_type": 1, "layout": "grouped-grouped"}, "with layout 'strided-tiled'.*give one of them"),
    ({"mora_type": 2, "operator": 3}, "`operator` says 3, but `mora_type` says 2: give one of them"),
    ({"mora_type": 6, "layout": "strided-tiled"}, "give one of them"),
    ({"mora_type": 5}, "Unknown `mora_type` 5: expected one of 1, 2, 3, 4, 6"),
    ({"operator": 0}, "Unknown `mora_type` 0"),
    ({"mora_type": 1, "fold": True}, "`fold` belongs to"),
    ({"operator": "rotary"}, "Unknown operator 'rotary': expected one of 'sharing'"),
    ({"operator": "sharing", "layout": "striped"}, "Unknown layout 'striped'"),
    ({"layout": "strided-tiled"}, "`layout` belongs to the operator 'sharing'"),
    ({"operator": "truncation", "fold": True}, "`fold` belongs to"),
    ({"r": 0}, "`r` should be a positive integer value.*got 0"),
    ({"r": -1}, "`r` should be a positive integer value.*got -1"),
    ({"r": 2.5}, "`r` should be a positive integer value.*got 2.5"),
    ({"r": True}, "`r` should be a positive integer value.*got True"),
    ({"r": "8"}, "`r` should be a positive integer value.*got '8'"),
    ({"rank_pattern": {"q_proj": 0}}, r"`rank_pattern\['q_proj'\]` should be a positive integer value.*got 0"),
    ({"mora_dropout": 1.5}, "`mora_dropout` is a probability from 0 to 1, but is 1.5"),
    ({"mora_dropout": -0.1}, "`mora_dropout` is a probability from 0 to 1"),
    ({"bias": "some"}, "`bias` must be 'none', 'all' or 'mora_only', but is 'some'"),
    ({"target_modules": ".*q", "layers_to_transform": [0]}, "`layers_to_transform` cannot be used"),
    ({"target_modules": ".*q", "layers_pattern": "layers"}, "`layers_pattern` cannot be used"),
    ({"target_modules": ["q"], "layers_pattern": "layers"}, "`layers_to_transform` must also be specified"),
]


@pytest.mark.parametrize(("arguments", "message"), CONFLICTS, ids=lambda value: str(value)[:50])
def test_bad_values_get_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MoraConfig(**arguments)
    assert "\n" not in str(error.value)


ROUND_TRIPS = [
    *({"operator": name} for name in OPERATORS),
    *({"operator": "sharing", "layout": layout} for layout in LAYOUTS),
    {"operator": "rotation", "fold": True, "r": 3, "scaling": 0.5, "cap_r_hat": False, "mora_dropout": 0.1},
    {"mora_type": 6, "target_modules": ["b", "a"], "exclude_modules": ["c"], "rank_pattern": {"a": 2}},
    {"target_modules": ["a"], "layers_to_transform": [0, 1], "layers_pattern": "h", "modules_to_save": ["head"]},
    {"bias": "mora_only", "init_weights": False, "task_type": "CAUSAL_LM"},
]


@pytest.mark.parametrize("arguments", ROUND_TRIPS, ids=str)
def test_a_saved_config_is_loaded_as_it_was(arguments, tmp_path):
    config = MoraConfig(**arguments)
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert stored["peft_type"] == "MORA"
    assert stored["operator"] == config.operator in OPERATORS
    assert stored["mora_type"] is None
    for loaded in (PeftConfig.from_pretrained(tmp_path), MoraConfig.from_pretrained(tmp_path)):
        assert type(loaded) is MoraConfig
        assert {**loaded.to_dict(), "inference_mode": False} == {**config.to_dict(), "inference_mode": False}


@pytest.mark.parametrize("cap", [True, False])
def test_the_cap_bounds_the_side(cap):
    model = get_peft_model(nn.Sequential(nn.Linear(8, 6)), MoraConfig(r=16, target_modules=["0"], cap_r_hat=cap))
    r_hat = model.base_model.model[0].r_hat["default"]
    assert (r_hat <= 6) is cap
    assert model(torch.ones(2, 8)).shape == (2, 6)
