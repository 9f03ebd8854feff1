"""Configurations written for LoRA are read as MoRA's where they mean the same, and refused where they do not."""

from dataclasses import fields

import pytest
from peft import LoraConfig

from mora_peft import MoraConfig
from mora_peft.errors import UserError
from mora_peft.integrations import mora_config


def test_what_is_the_same_is_kept_and_what_has_no_meaning_is_passed_over():
    config = mora_config(
        r=4,
        lora_alpha=16,
        lora_dropout=0.1,
        target_modules=["q_proj"],
        fan_in_fan_out=True,
        use_dora=False,
        use_rslora=None,
        init_lora_weights=True,
        operator="sharing",
    )
    assert config == MoraConfig(r=4, mora_dropout=0.1, target_modules=["q_proj"], operator="sharing")


def test_every_default_of_LoRA_is_taken():
    """Some tools pass all fields that they know."""
    skipped = ("peft_type", "bias", "r")  # LoRA's peft_type is no keyword; the others are in both
    defaults = LoraConfig()
    options = {field.name: getattr(defaults, field.name) for field in fields(LoraConfig) if field.init}
    config = mora_config(**{name: value for name, value in options.items() if name not in skipped})
    assert config == MoraConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [("use_dora", True), ("use_rslora", True), ("alpha_pattern", {"q_proj": 4}), ("init_lora_weights", "pissa")],
)
def test_what_MoRA_has_not_is_refused(name, value):
    with pytest.raises(UserError, match=f"MoRA has no {name}, but it is .*: leave it out, or train with LoRA"):
        mora_config(r=8, **{name: value})


def test_what_llama_factory_passes_is_taken():
    """The keywords of `LoraConfig` in llamafactory/model/adapter.py of LLaMA-Factory 0.9.5."""
    config = mora_config(
        task_type="CAUSAL_LM",
        inference_mode=False,
        r=8,
        target_modules=["q_proj", "v_proj"],
        lora_alpha=16,
        lora_dropout=0.0,
        use_rslora=False,
        use_dora=False,
        modules_to_save=None,
    )
    assert config == MoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
