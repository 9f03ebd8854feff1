"""What makes single methods what they are."""

import json
import re

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import TrainingArguments

from mora_peft.errors import UserError
from mora_peft.operators import LAYOUTS
from mora_peft.recipes.methods import METHODS, apply, first_rate
from mora_peft.recipes.methods.build import LONGEST_PROMPT
from mora_peft.recipes.models import load_base


@pytest.fixture
def tuned(tiny_model):
    def make(method, budget=3, /, **options):
        base, _ = load_base(tiny_model, torch.float32)
        return apply(method, base, budget, "all-linear", options)

    return make


def weights(model: torch.nn.Module, part: str) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if part in name]


def test_asymmetric_lora_freezes_orthonormal_rows(tuned):
    model = tuned("asymmetric-lora").model
    assert weights(model, "lora_A") and all(B.requires_grad for B in weights(model, "lora_B"))
    for A in weights(model, "lora_A"):
        assert not A.requires_grad
        torch.testing.assert_close(A @ A.T, torch.eye(len(A)))


def test_lora_plus_learns_b_faster(tuned, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, use_cpu=True)
    for options, ratio in (({}, 16), ({"loraplus_lr_ratio": 4}, 4)):
        result = tuned("lora+", **options)
        rates = {
            parameter: (group["lr"], group["weight_decay"])
            for group in result.optimizer(arguments).param_groups
            for parameter in group["params"]
        }
        assert set(rates) == {parameter for parameter in result.model.parameters() if parameter.requires_grad}
        assert {rates[A] for A in weights(result.model, "lora_A")} == {(1e-3, 0.1)}
        assert {rates[B] for B in weights(result.model, "lora_B")} == {(ratio * 1e-3, 0.1)}


def test_only_lora_plus_has_an_optimizer_of_its_own(tuned):
    assert tuned("lora").optimizer is None and tuned("mora").optimizer is None


@pytest.mark.parametrize("method", ["mora", "lora", "asymmetric-lora", "miss", "hira", "remora"])
def test_muon_moves_every_matrix_in_all_of_its_directions_alike(method, tuned, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-2, weight_decay=0.0, use_cpu=True)
    result = tuned(method, optimizer="muon")
    trained = [parameter for parameter in result.model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    optimizer = result.optimizer(arguments)
    generator = torch.Generator().manual_seed(0)
    for parameter in trained:  # gradients with one direction far above the others
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.grad = noise + 10 * torch.outer(noise[:, 0].sign(), noise[0].sign())
    optimizer.step()
    for start, parameter in zip(before, trained, strict=True):
        step = (parameter - start).detach()
        assert spread(step) < 2 < spread(parameter.grad)
        assert 0.5 < step.square().mean().sqrt() / (0.2 * arguments.learning_rate) < 1.5


def spread(matrix: torch.Tensor) -> float:
    """The largest singular value over the middle one."""
    values = torch.linalg.svdvals(matrix)
    return float(values[0] / values[len(values) // 2])


def gradients(parameters: list[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))


@pytest.mark.parametrize(("method", "rest"), [("full", r"embed_tokens|lm_head|norm"), ("dora", "magnitude")])
def test_beside_muon_adamw_trains_what_is_no_matrix_between_features(method, rest, tuned, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-2, weight_decay=0.0, use_cpu=True)
    result = tuned(method, optimizer="muon")
    trained = {name: weight for name, weight in result.model.named_parameters() if weight.requires_grad}
    others = [weight for name, weight in trained.items() if re.search(rest, name)]
    matrices = [weight for name, weight in trained.items() if not re.search(rest, name)]
    assert others and matrices
    twins = [[torch.nn.Parameter(weight.detach().clone()) for weight in part] for part in (matrices, others)]
    alone = [
        torch.optim.Muon(twins[0], lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(twins[1], lr=1e-2, weight_decay=0.0),
    ]
    optimizer = result.optimizer(arguments)
    schedules = [torch.optim.lr_scheduler.StepLR(each, step_size=1, gamma=0.5) for each in (optimizer, *alone)]
    for step in range(4):
        if step == 2:  # goes on from a checkpoint
            saved, optimizer = optimizer.state_dict(), result.optimizer(arguments)
            optimizer.load_state_dict(saved)
            schedules[0].optimizer = optimizer
        for parameters in (trained.values(), *twins):
            gradients(list(parameters))
        for each in (optimizer, *alone):
            each.step()
        for schedule in schedules:
            schedule.step()
    for own, expected in zip((matrices, others), twins, strict=True):
        for weight, twin in zip(own, expected, strict=True):
            torch.testing.assert_close(weight, twin)


@pytest.mark.parametrize("method", ["vera", "prompt"])
def test_muon_is_refused_where_no_matrix_is_trained(method, tuned, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-2, use_cpu=True)
    with pytest.raises(UserError, match="Muon is for matrices between features, and this method trains none"):
        tuned(method, optimizer="muon").optimizer(arguments)


def test_muon_is_refused_where_matrices_are_cut_up(tuned, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    arguments.deepspeed_plugin = object()
    with pytest.raises(UserError, match="DeepSpeed cuts up"):
        tuned("mora", optimizer="muon").optimizer(arguments)


def test_optimizers_are_named_or_the_methods_own(tuned):
    assert tuned("mora", optimizer="adamw").optimizer is None
    assert first_rate("mora", {"optimizer": "muon"}) > first_rate("mora", {}) == METHODS["mora"].learning_rate
    with pytest.raises(UserError, match="'adam': expected adamw or muon"):
        tuned("mora", optimizer="adam")
    with pytest.raises(UserError, match=r"lora\+ has an optimizer of its own"):
        tuned("lora+", optimizer="muon")


def test_dora_has_magnitudes_that_count(tuned):
    model = tuned("dora").model
    magnitudes = weights(model, "lora_magnitude_vector")
    assert len(magnitudes) == len(weights(model, "lora_A")) and all(m.requires_grad for m in magnitudes)


def test_rslora_scales_by_the_root_of_the_rank(tuned):
    scale = {
        name: {layer.scaling["default"] for layer in tuned(name, 4).model.modules() if isinstance(layer, LoraLayer)}
        for name in ("lora", "rslora")
    }
    assert scale == {"lora": {2.0}, "rslora": {4.0}}


@pytest.mark.parametrize("name", ["relora", "remora"])
def test_merging_methods_merge_as_their_options_say(name, tuned):
    result = tuned(name, every=7, rewarm=2)
    [callback] = result.callbacks
    assert (callback.every, callback.rewarm) == (7, 2)
    assert callback.layouts == (list(LAYOUTS) if name == "remora" else None)
    if name == "remora":
        assert result.model.peft_config["default"].operator == "sharing"
    with pytest.raises(UserError, match="every"):
        tuned(name, every=0)


def test_a_prompt_takes_the_budget_up_to_a_limit(tuned):
    for r in (1, 2, 50):
        result = tuned("prompt", r)
        length = result.model.peft_config["default"].num_virtual_tokens
        assert length == LONGEST_PROMPT if result.budget_note else result.trainable_parameters == length * 32
    assert result.budget_note


def test_a_configuration_that_peft_saved_is_taken_up_again(tuned, tmp_path):
    saved = tuned("dora", r=5)
    saved.model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["inference_mode"]
    for path in (tmp_path, tmp_path / "adapter_config.json"):
        again = tuned("peft", config=str(path))
        assert again.trainable_parameters == saved.trainable_parameters
        assert again.model.peft_config["default"].use_dora
    assert tuned("peft", config=str(tmp_path), use_dora=False).trainable_parameters < saved.trainable_parameters


@pytest.mark.parametrize("fields", [{"peft_type": "MORA", "r": 2}, {"peft_type": "OFT", "oft_block_size": 4},
                                    {"peft_type": "P_TUNING", "num_virtual_tokens": 3}])  # fmt: skip
def test_any_method_of_peft_can_be_named(fields, tuned, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    result = tuned("peft", config=str(tmp_path / "config.json"))
    assert result.model.peft_config["default"].peft_type == fields["peft_type"]
    assert result.trainable_parameters > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "could not be read"),
        ("{", "not valid JSON"),
        ("[1]", "peft_type"),
        ('{"r": 8}', "peft_type"),
        ('{"peft_type": "MAGIC"}', "unknown method 'MAGIC': expected one of .*LORA"),
        ('{"peft_type": "LORA", "rank": 8}', "rank, which LoraConfig"),
        ('{"peft_type": "LORA", "r": -8}', "-8"),
    ],
)
def test_configurations_that_cannot_be_used_are_refused(content, message, tuned, tmp_path):
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        tuned("peft", config=str(file))


def test_the_method_peft_needs_a_file(tuned):
    with pytest.raises(UserError, match="config"):
        tuned("peft")
