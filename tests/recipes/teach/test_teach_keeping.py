"""Keeping: a loss that is the distance from the base on general text, and training that then forgets less."""

import json

import pytest
import torch

from mora_peft.errors import UserError
from mora_peft.recipes import train
from mora_peft.recipes.adapters import beneath, load_adapter
from mora_peft.recipes.methods import apply
from mora_peft.recipes.models import load_base
from mora_peft.recipes.teach.general import general_rows
from mora_peft.recipes.teach.keeping import Keeping
from mora_peft.recipes.train import TrainConfig

ROWS = [
    {"prompt": "The ships", "completion": " left the harbour at dawn."},
    {"prompt": "Rain falls on", "completion": " the hills"},
    {"prompt": "Bread is made", "completion": " of flour, water and salt"},
]


@pytest.fixture
def adapted(tiny_model):
    """A model with an adapter that does nothing yet, and its tokenizer."""
    base, tokenizer = load_base(tiny_model, torch.float32)
    return apply("mora", base, 2, "all-linear", {"operator": "rotation"}).model.train(), tokenizer


def moved(model) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_the_loss_is_the_divergence_from_the_base_summed_over_the_rows(adapted):
    model, tokenizer = adapted
    keeping = Keeping(ROWS, tokenizer, len(ROWS), weight=4)
    assert keeping(model, 0).item() == pytest.approx(0, abs=1e-5)
    moved(model)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    found = keeping(model, 0)
    assert flags == [parameter.requires_grad for parameter in model.parameters()] and model.training

    expected = 0.0
    for row in ROWS:
        ids = tokenizer(row["prompt"] + row["completion"], return_tensors="pt").input_ids
        first = len(tokenizer(row["prompt"]).input_ids)
        with torch.no_grad():
            after = model(ids).logits[0].double().softmax(-1)
            with beneath(model):
                before = model(ids).logits[0].double().softmax(-1)
        divergence = (before * (before.log() - after.log())).sum(-1)
        expected += divergence[first - 1 : -1].sum().item()
    assert expected > 0.1 and found.item() == pytest.approx(4 * expected, rel=1e-4)
    found.backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_rows_take_turns(adapted):
    model, tokenizer = adapted
    moved(model)
    singly = [Keeping(ROWS, tokenizer, 1)(model, step).item() for step in range(3)]
    assert len(set(singly)) == 3
    halves = [Keeping(ROWS, tokenizer, 0.5)(model, step) for step in range(8)]
    taken = [loss.item() for loss in halves if loss is not None]
    assert taken == pytest.approx([*singly, singly[0]], rel=1e-5)
    assert Keeping(ROWS, tokenizer, 0)(model, 5) is None


def test_training_beside_it_goes_less_far_from_the_base(settings, tmp_path, tiny_model):
    _, tokenizer = load_base(tiny_model, torch.float32)
    keeping = Keeping(ROWS, tokenizer, len(ROWS), weight=4)

    def trained(name: str, beside: Keeping | None) -> tuple[float, float]:
        changes = {"output": str(tmp_path / name), "steps": 30}
        folder = train.train(TrainConfig(**settings | changes, learning_rate=3e-2), beside=beside)
        loss = json.loads((folder / "run.json").read_text())["evaluations"][-1]["loss"]
        model, _ = load_adapter(str(folder / "adapter"))
        return keeping(model, 0).item(), loss

    (free, loss_free), (kept, loss_kept) = trained("free", None), trained("kept", keeping)
    assert kept < 0.5 * free
    assert loss_kept < loss_free + 0.1, "and what is to be learned is learned nearly as well"


def test_text_without_spaces_is_kept_too(adapted, tmp_path):
    model, tokenizer = adapted
    file = tmp_path / "general.jsonl"
    file.write_text("".join(json.dumps({"text": "公司成立于二零一九年总部在青岛市中心" * 2}) + "\n" for _ in range(8)))
    kept, measured = general_rows(str(file), model, tokenizer, 64, seed=0)
    assert len(kept) == 6 and len(measured) == 2
    file.write_text('{"text": "short"}\n' * 4)
    with pytest.raises(UserError, match=r"general\.jsonl.*too little text"):
        general_rows(str(file), model, tokenizer, 64, seed=0)
