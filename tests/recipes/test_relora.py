"""Merge and reset: the model stays what it computes, ranks add up, and an interrupted run ends in the same weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, get_scheduler

from mora_peft import MoraConfig
from mora_peft.errors import UserError
from mora_peft.operators import LAYOUTS
from mora_peft.recipes.relora import BASE, MergeAndReset, merge_and_reset
from mora_peft.tuner import MoraLayer

TARGETS = ["q_proj", "v_proj", "down_proj"]
WALK = list(LAYOUTS)


def base(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.1,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def tuned(method: str, dtype: torch.dtype = torch.float32, **options):
    model = base(dtype)
    torch.manual_seed(1)
    if method == "relora":
        config = LoraConfig(**{"r": 2, "target_modules": TARGETS, "lora_dropout": 0.1, "bias": "none"} | options)
    else:
        given = {"r": 1, "operator": "sharing", "target_modules": TARGETS, "mora_dropout": 0.1}
        config = MoraConfig(**given | options)
    return get_peft_model(model, config)


def rows() -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(40, (20, 12), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": row, "labels": row} for row in tokens]


def trainer(model, folder: Path, merging: MergeAndReset | None, *more: TrainerCallback, **settings) -> Trainer:
    arguments = {
        "output_dir": str(folder), "max_steps": 9, "per_device_train_batch_size": 3, "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine", "warmup_steps": 2, "logging_steps": 1, "save_steps": 3, "report_to": "none",
        "disable_tqdm": True, "use_cpu": True, "optim": "adamw_torch", "seed": 7,
    }  # fmt: skip
    callbacks = [*([merging] if merging else []), *more]
    return Trainer(model, TrainingArguments(**arguments | settings), train_dataset=rows(), callbacks=callbacks)


def merging(method: str, every: int = 4, rewarm: int = 2) -> MergeAndReset:
    return MergeAndReset(every, rewarm, WALK if method == "remora" else None)


def layers(model) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}


def totals(model) -> dict[str, torch.Tensor]:
    """Base plus ΔW, by layer, in float64."""
    adapter = model.active_adapter
    return {
        name: layer.get_base_layer().weight.detach().double() + layer.get_delta_weight(adapter).detach().double()
        for name, layer in layers(model).items()
    }


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class AtEachStep(TrainerCallback):
    """Calls `look(step, model, optimizer)` after each step, when the merge of that step is done."""

    def __init__(self, look):
        self.look = look

    def on_step_end(self, args, state, control, model, optimizer, **kwargs):
        self.look(state.global_step, model, optimizer)


def stop_at(step: int) -> AtEachStep:
    def look(now, model, optimizer):
        if now == step:
            raise KeyboardInterrupt

    return AtEachStep(look)


@pytest.mark.parametrize(
    "method, options", [("relora", {"use_rslora": True}), *(("remora", {"layout": layout}) for layout in WALK)]
)
def test_the_model_computes_the_same_after_a_merge(method, options):
    model = tuned(method, **options).eval()
    tokens = torch.stack([row["input_ids"] for row in rows()])
    untouched = model(tokens).logits.detach()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) / 10)
    before = model(tokens).logits.detach()
    parameters = merge_and_reset(model, seed=3)
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters() if p.requires_grad}
    after = model(tokens).logits.detach()
    with model.disable_adapter():
        merged = model(tokens).logits.detach()
    scale = (before - untouched).abs().max()
    assert scale > 0.1
    assert (after - before).abs().max() < 1e-4 * scale and (merged - before).abs().max() < 1e-4 * scale
    assert all(not layer.get_delta_weight("default").any() and not layer.merged for layer in layers(model).values())


def test_a_new_A_hangs_on_the_seed_alone():
    drawn = []
    for seed in (5, 5, 6):
        torch.rand(len(drawn))
        model = tuned("relora")
        state = torch.get_rng_state()
        merge_and_reset(model, seed)
        assert torch.equal(state, torch.get_rng_state())
        drawn.append([layer.lora_A["default"].weight.detach().clone() for layer in layers(model).values()])
    same = [[torch.equal(a, b) for a, b in zip(drawn[0], other, strict=True)] for other in drawn[1:]]
    assert all(same[0]) and not any(same[1])
    assert not torch.equal(drawn[0][0], drawn[0][2])


@pytest.mark.parametrize("method", ["relora", "remora"])
def test_the_rank_of_what_was_learned_grows_past_the_adapters(method, tmp_path):
    model = tuned(method, lora_dropout=0.0) if method == "relora" else tuned(method, mora_dropout=0.0)
    start, ranks = totals(model), {}

    def look(step, model, optimizer):
        for name, total in totals(model).items():
            values = torch.linalg.svdvals(total - start[name])
            ranks.setdefault(name, []).append(int((values > 1e-4 * values[0]).sum()))

    trainer(model, tmp_path, merging(method), AtEachStep(look), warmup_steps=0).train()
    for name, layer in layers(model).items():
        own = layer.r["default"] if method == "relora" else layer.r_hat["default"]
        before, between, after = ranks[name][3], ranks[name][5], ranks[name][8]
        assert before <= own < between <= 2 * own, name
        if method == "relora":
            assert between < after <= 3 * own, name
        else:  # four layouts, but two ways in and two ways out
            assert between <= after <= 2 * own, name


def test_the_layouts_are_walked_in_turn(tmp_path):
    model, seen = tuned("remora", layout="grouped-tiled"), []

    def look(step, model, optimizer):
        [layout] = {layer.operator["default"].layout for layer in model.modules() if isinstance(layer, MoraLayer)}
        assert model.peft_config["default"].layout == layout
        seen.append(WALK.index(layout))

    trainer(model, tmp_path, merging("remora", every=2, rewarm=0), AtEachStep(look), save_strategy="no").train()
    assert seen == [0, 1, 1, 2, 2, 3, 3, 0, 0]


@pytest.mark.parametrize("method", ["relora", "remora"])
def test_the_optimizer_forgets_the_adapter_and_nothing_else(method, tmp_path):
    model = tuned(method, modules_to_save=["lm_head"])
    known = []

    def look(step, model, optimizer):
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        known.append({"lm_head" in name: p in optimizer.state for name, p in trained})

    trainer(model, tmp_path, merging(method), AtEachStep(look), save_strategy="no").train()
    assert [step for step, state in enumerate(known, start=1) if not state[False]] == [4, 8]
    assert all(state[True] for state in known)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant_with_warmup"])
def test_the_learning_rate_is_the_schedule_times_the_climb(schedule, tmp_path):
    run = trainer(tuned("relora"), tmp_path, merging("relora"), lr_scheduler_type=schedule, save_strategy="no")
    run.train()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-2)
    smooth = get_scheduler(schedule, optimizer, num_warmup_steps=2, num_training_steps=9)
    expected = []
    for climb in (1, 1, 1, 1, 1 / 3, 2 / 3, 1, 1, 1 / 3):
        expected.append(climb * smooth.get_last_lr()[0])
        optimizer.step()
        smooth.step()
    found = [entry["learning_rate"] for entry in run.state.log_history if "loss" in entry]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("saved, stopped", [(3, 7), (4, 5), (8, 9)])  # between merges, and at one
@pytest.mark.parametrize("method", ["relora", "remora"])
def test_an_interrupted_run_ends_in_the_same_weights(method, saved, stopped, tmp_path):
    settings = {"save_steps": saved, "max_steps": 10}
    whole = trainer(tuned(method), tmp_path / "whole", merging(method), **settings)
    whole.train()
    cut = trainer(tuned(method), tmp_path / "cut", merging(method), stop_at(stopped), **settings)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    again = trainer(tuned(method), tmp_path / "cut", merging(method), **settings)
    again.train(resume_from_checkpoint=True)
    expected, found = weights(whole.model), weights(again.model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert again.model.peft_config["default"].to_dict() == whole.model.peft_config["default"].to_dict()
    logs = [
        [(entry["loss"], entry["learning_rate"]) for entry in run.state.log_history if "loss" in entry]
        for run in (whole, again)
    ]
    assert logs[0] == logs[1]
    start = base().state_dict()
    assert not torch.equal(found["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"],
                           start["model.layers.0.self_attn.q_proj.weight"])  # fmt: skip


def test_a_checkpoint_holds_the_adapted_layers_base_weights_alone(tmp_path):
    run = trainer(tuned("relora"), tmp_path, merging("relora"), max_steps=6)
    run.train()
    assert not load_file(tmp_path / "checkpoint-3" / BASE)  # nothing was merged yet
    stored = load_file(tmp_path / "checkpoint-6" / BASE)
    assert len(stored) == len(layers(run.model))
    (tmp_path / "checkpoint-3" / BASE).unlink()
    with pytest.raises(UserError, match=r"checkpoint-3 has no merged_base.safetensors.*anew"):
        trainer(tuned("relora"), tmp_path, merging("relora")).train(str(tmp_path / "checkpoint-3"))


@pytest.mark.parametrize("method", ["relora", "remora"])
def test_nothing_is_merged_after_the_last_step_and_the_result_can_be(method, tmp_path):
    run = trainer(tuned(method), tmp_path, merging(method), max_steps=8, save_strategy="no")
    run.train()
    model = run.model.eval()
    assert all(layer.get_delta_weight("default").any() for layer in layers(model).values())
    tokens = torch.stack([row["input_ids"] for row in rows()])
    expected = model(tokens).logits.detach()
    plain = model.merge_and_unload()
    plain.save_pretrained(tmp_path / "model")
    found = LlamaForCausalLM.from_pretrained(tmp_path / "model")(tokens).logits
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_relora as t
from safetensors.torch import save_file
method = sys.argv[3]
run = t.trainer(t.tuned(method), Path(sys.argv[2]), t.merging(method, every=2, rewarm=1), max_steps=5, save_steps=3,
                seed=7, ddp_backend="gloo")
run.train()
assert run.args.world_size == 2
save_file(t.weights(run.model), Path(sys.argv[2]) / f"rank{run.args.process_index}.safetensors")
t.torch.distributed.destroy_process_group()  # a process that just leaves with Gloo's threads running may crash
"""


@pytest.mark.parametrize("method", ["relora", "remora"])
def test_two_processes_keep_the_same_weights(method, tmp_path):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, str(script), str(Path(__file__).parent), str(tmp_path), method], check=True, timeout=300)
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert load_file(tmp_path / "checkpoint-3" / BASE)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((0, 0), "every.*at least 1, not 0"),
        ((4, 4), "rewarm must be from 0 to 3.*not 4"),
        ((4, -1), "rewarm.*not -1"),
        ((4, 1, ["tiled"]), "layouts must be some of strided-tiled.*not tiled"),
        ((4, 1, []), "not none"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        MergeAndReset(*arguments)


@pytest.mark.parametrize(
    "model, method, words",
    [
        (lambda: base(), "relora", "no adapter to merge and reset"),
        (lambda: tuned("relora", torch.bfloat16), "relora", "q_proj is bfloat16.*in float32"),
        (lambda: tuned("relora"), "remora", "has no layout to change.*operator sharing"),
        (lambda: tuned("remora", operator="rotation"), "remora", "has no layout to change"),
        (lambda: tuned("remora"), "relora", "ReLoRA needs LoRA"),
        (lambda: tuned("relora", use_dora=True), "relora", "plain LoRA: leave out use_dora"),
        (lambda: tuned("relora", init_lora_weights="gaussian"), "relora", "plain LoRA"),
        (
            lambda: get_peft_model(base(), IA3Config(target_modules=TARGETS, feedforward_modules=[])),
            "relora",
            "ReLoRA needs LoRA",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused_before_the_first_step(model, method, words, tmp_path):
    with pytest.raises(UserError, match=words):
        trainer(model(), tmp_path, merging(method)).train()


def test_a_schedule_without_factors_is_refused(tmp_path):
    run = trainer(tuned("relora"), tmp_path, merging("relora"))
    run.create_optimizer()
    run.lr_scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, step_size=3)
    with pytest.raises(UserError, match="StepLR"):
        run.train()
