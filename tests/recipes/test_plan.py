"""The memory of a step, planned without data: what the same step keeps with data, for any dtype and adapter."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from mora_peft import MoraConfig
from mora_peft.cli.main import main
from mora_peft.operators.rotation import forget_tables
from mora_peft.recipes.memory import _Live, memory_of_step

CONFIGS = {
    "rotation": MoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
    "sharing": MoraConfig(r=2, operator="sharing", target_modules="all-linear", task_type="CAUSAL_LM"),
    "lora": LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
}
ROWS, LENGTH = 3, 40


def build(name, dtype, again):
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    model = get_peft_model(LlamaForCausalLM(config).to(dtype), CONFIGS[name]).train()
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_plan_keeps_what_a_real_step_keeps(name, dtype, again):
    with torch.device("meta"):
        planned = memory_of_step(build(name, dtype, again), ROWS, LENGTH)
    model = build(name, dtype, again)
    parameters = list(model.parameters())
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    forget_tables()
    with _Live([*parameters, *model.buffers(), ids]) as live:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        kept = live.now
        loss.backward()
    assert planned.weights == sum(p.nbytes for p in parameters if not p.requires_grad)
    assert planned.adapter == sum(p.nbytes for p in parameters if p.requires_grad)
    assert planned.optimizer == 2 * planned.adapter
    assert planned.activations == pytest.approx(kept, rel=0.01)
    assert planned.activations + planned.working == pytest.approx(live.peak, rel=0.01)


def test_recomputing_keeps_less_and_a_longer_row_more():
    def plan(again=False, length=LENGTH):
        with torch.device("meta"):
            return memory_of_step(build("rotation", torch.float32, again), ROWS, length)

    assert plan(again=True).activations < plan().activations < plan(length=2 * LENGTH).activations


@pytest.mark.parametrize(("quantization", "bits"), [("nf4", 4.127), ("int8", 8)])
def test_quantized_layers_take_their_bits(quantization, bits):
    with torch.device("meta"):
        model = build("rotation", torch.bfloat16, False)
        linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)) - 96 * 32
        plain = memory_of_step(build("rotation", torch.bfloat16, False), ROWS, LENGTH)
        found = memory_of_step(model, ROWS, LENGTH, quantization)
    saved = plain.weights - found.weights
    assert saved / linear == pytest.approx((16 - bits) / 8, rel=0.2 if quantization == "int8" else 0.01)
    assert found.working > plain.working


def test_real_tensors_can_follow_fake_ones():
    with torch.device("meta"):
        memory_of_step(build("rotation", torch.float32, False), ROWS, LENGTH)
    ids = torch.zeros(1, 64, dtype=torch.long)
    build("rotation", torch.float32, False)(input_ids=ids, labels=ids).loss.backward()


def test_the_command_adds_it_all_up(tiny_model, capsys):
    words = ["inspect", tiny_model, "--plan", "--batch-size", "2", "--max-length", "16", "--json"]
    assert main(words) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory.pop("total") == sum(memory.values()) > 0
    assert main(["inspect", "--model", tiny_model, "--plan", "--gradient-checkpointing", "--quantization", "nf4"]) == 0
    assert "activations recomputed" in capsys.readouterr().out
    assert main(["inspect", tiny_model, "--plan", "--batch-size", "0"]) == 2


def plan_of(config, folder, capsys, *options: str) -> dict:
    config.save_pretrained(folder)
    assert main(["inspect", str(folder), "--plan", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["memory"]


def test_a_plan_takes_storage_and_positions_from_the_configuration(tmp_path, capsys):
    sizes = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    plain = plan_of(GPT2Config(**sizes), tmp_path / "plain", capsys)
    nf4 = plan_of(GPT2Config(**sizes), tmp_path / "plain", capsys, "--quantization", "nf4")
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    own = plan_of(GPT2Config(**sizes, quantization_config=stored), tmp_path / "own", capsys)
    assert own["weights"] == nf4["weights"] < plain["weights"]
    assert main(["inspect", str(tmp_path / "plain"), "--plan", "--max-length", "65"]) == 2
    assert "64 positions" in capsys.readouterr().err
