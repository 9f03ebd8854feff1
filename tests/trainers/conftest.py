"""What every run of a stock trainer must have done, whichever trainer it was."""

import math
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel

TOKENS = 1 + torch.arange(24).view(2, 12) % 90


@pytest.fixture
def check_run(tiny_model):
    """`check_run(trainer, folder)` after training: the losses, what was trained, and what was saved in `folder`."""

    def check(trainer: transformers.Trainer, folder: Path, base_class: type, also_trained: str = "mora_M", **options):
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert len(losses) == trainer.args.max_steps
        assert all(map(math.isfinite, losses))

        model = trainer.model.eval()
        base = base_class.from_pretrained(tiny_model, dtype=torch.float32, **options)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained
        assert all("mora_M" in name or also_trained in name for name in trained)
        assert any(parameter.any() for name, parameter in model.named_parameters() if "mora_M" in name)
        weights = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
        for name, weight in base.state_dict().items():
            assert also_trained in name or torch.equal(weights[f"base_model.model.{name}"], weight), name

        loaded = PeftModel.from_pretrained(base, folder).eval()
        with torch.no_grad():
            assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)

    return check
