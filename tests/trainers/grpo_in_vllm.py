"""What test_grpo_in_vllm.py starts: a run of GRPO whose answers a vLLM in the same process gives.

    python grpo_in_vllm.py MODEL OPERATOR RESULT

The JSON in RESULT then has the log-likelihoods of a text's tokens, by vLLM after every sync, and by the merged model.
"""

import json
import sys
from copy import deepcopy
from functools import partial

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_generation
from vllm import SamplingParams
from vllm.model_executor.layers.linear import LinearBase

from mora_peft import MoraConfig

# On a CPU vLLM packs weights once, after loading, and could not take others; this switch of its own leaves them.
LinearBase._cpu_skip_gemm_dispatch = True
vllm_generation.LLM = partial(vllm_generation.LLM, dtype="float32")  # to compare more than three digits
TOKENS = [5, 3, 8, 60, 2, 9, 41, 7, 17, 30]

model, operator, result = sys.argv[1:]


def of_vllm(trainer: GRPOTrainer) -> list[float]:
    trainer.vllm_generation.sync_weights()
    asked = SamplingParams(max_tokens=1, temperature=1, prompt_logprobs=0)
    [answer] = trainer.vllm_generation.llm.generate([{"prompt_token_ids": TOKENS}], asked, use_tqdm=False)
    return [found[token].logprob for found, token in zip(answer.prompt_logprobs[1:], TOKENS[1:], strict=True)]


@torch.no_grad()
def of_merged(trainer: GRPOTrainer) -> list[float]:
    merged = deepcopy(trainer.model).merge_and_unload().eval()
    logprobs = merged(torch.tensor([TOKENS])).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(TOKENS[1:])[:, None]).squeeze(1).tolist()


class Compare(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        steps.append((of_vllm(trainer), of_merged(trainer)))


trainer = GRPOTrainer(
    model,
    reward_funcs=lambda completions, **_: [float(sum(map(ord, text)) % 97) for text in completions],
    args=GRPOConfig(
        f"{result}-run",
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=64,
        model_init_kwargs={"dtype": "float32"},
        max_steps=3,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        learning_rate=1e-2,
        report_to="none",
        bf16=False,
        use_cpu=True,
        save_strategy="no",
    ),
    train_dataset=Dataset.from_dict({"prompt": ["Name a river.", "Name a fruit."]}),
    peft_config=MoraConfig(r=4, target_modules="all-linear", operator=operator, task_type="CAUSAL_LM"),
)
start, steps = of_vllm(trainer), []
trainer.add_callback(Compare())
trainer.train()
with open(result, "w") as file:
    json.dump({"start": start, "steps": steps}, file)
