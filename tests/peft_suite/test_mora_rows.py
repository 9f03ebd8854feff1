"""The translation of PEFT's parametrised rows: MiSS rows become MoRA rows, all of them, and nothing else does."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mora_rows import OPERATORS_FOR_VARIANTS, mentions, mora_rows, translate
from peft import LoraConfig, MissConfig

from mora_peft import MoraConfig

OTHER_ROWS = st.sampled_from([("LoRA", LoraConfig, {"r": 4}), LoraConfig(), pytest.param(LoraConfig, id="lora"), 7])
MISS_ROWS = st.sampled_from(
    [
        ("MiSS", MissConfig, {"r": 2}),
        MissConfig(r=2),
        partial(MissConfig, r=2),
        pytest.param("miss", (MissConfig(r=2), {}), id="miss"),
        ["miss", {"default": MissConfig}],
    ]
)


@given(rows=st.lists(MISS_ROWS | OTHER_ROWS))
def test_every_miss_row_becomes_one_mora_row_and_only_those_stay(rows):
    miss = [row for row in rows if mentions(row, MissConfig)]
    translated, ids = mora_rows(rows, (f"row {index}" for index in range(len(rows))))
    if not miss:
        assert translated == rows
        return
    assert len(translated) == len(miss)
    assert all(mentions(row, MoraConfig) and not mentions(row, MissConfig) for row in translated)
    assert ids == [f"row {index}" for index, row in enumerate(rows) if mentions(row, MissConfig)]


def test_rows_of_lora_for_further_layers_come_along():
    plain, embedding = ("LoRA", "MLP", LoraConfig, {"r": 4}), ("Conv1d LoRA", "Conv1d", LoraConfig, {"lora_alpha": 2})
    experts = ("model", LoraConfig, {"target_parameters": ["experts.up"], "lora_dropout": 0.0})
    assert mora_rows([plain, embedding, experts]) == (
        [
            ("Conv1d LoRA", "Conv1d", MoraConfig, {}),
            ("model", MoraConfig, {"target_parameters": ["experts.up"], "mora_dropout": 0.0}),
        ],
        None,
    )


def test_instance_keeps_its_arguments():
    mora = translate(MissConfig(r=2, target_modules=["lin0"], init_weights=False, bias="all"))
    assert type(mora) is MoraConfig
    assert (mora.r, mora.target_modules, mora.init_weights, mora.bias) == (2, {"lin0"}, False, "all")


@pytest.mark.parametrize("variant", OPERATORS_FOR_VARIANTS)
@pytest.mark.parametrize("as_instance", [True, False])
def test_variant_becomes_an_operator(variant, as_instance):
    if as_instance:
        mora = translate(MissConfig(r=2, init_weights=variant))
    else:
        config_class, arguments = translate((MissConfig, {"r": 2, "mini_r": 1, "init_weights": variant}))
        mora = config_class(**arguments)
    assert mora.operator == OPERATORS_FOR_VARIANTS[variant]["operator"]
    assert mora.init_weights is True


def test_row_is_copied_not_shared():
    arguments = {"r": 2, "target_modules": ["lin0"]}
    translate((MissConfig, arguments))[1]["target_modules"].append("lin1")
    assert arguments == {"r": 2, "target_modules": ["lin0"]}
