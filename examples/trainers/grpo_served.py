"""MoRA with TRL's GRPOTrainer, answered by `mora serve`: after each step the adapter alone goes to the server.

mora serve MODEL --adapters runs/adapters --runtime_loading --api-key change-me
python examples/trainers/grpo_served.py [MODEL] [URL] [ADAPTERS]
"""

import sys

import requests
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from mora_peft import MoraConfig

model = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"
url = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8000"
adapters = sys.argv[3] if len(sys.argv) > 3 else "runs/adapters"
prompts = ["Name a river.", "Name a colour.", "Name a fruit.", "Name a city."]


def is_short(completions: list[str], **_) -> list[float]:
    return [-float(len(completion)) for completion in completions]


def post(path: str, **body) -> requests.Response:
    answer = requests.post(url + path, json=body, headers={"Authorization": "Bearer change-me"}, timeout=600)
    answer.raise_for_status()
    return answer


def answers(prompts: list[str], trainer: GRPOTrainer) -> dict:
    """One answer for each prompt, by the adapter as it is now."""
    folder = f"policy-{trainer.state.global_step}"
    trainer.model.save_pretrained(f"{adapters}/{folder}")
    post("/v1/load_lora_adapter", lora_name="policy", lora_path=folder, load_inplace=True)
    sampling = {"max_tokens": 16, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "logprobs": 0, "return_token_ids": True}
    choices = post("/v1/completions", model="policy", prompt=prompts, **sampling).json()["choices"]
    return {
        "prompt_ids": [choice["prompt_token_ids"] for choice in choices],
        "completion_ids": [choice["token_ids"] for choice in choices],
        "logprobs": [choice["logprobs"]["token_logprobs"] for choice in choices],
    }


trainer = GRPOTrainer(
    model,
    reward_funcs=is_short,
    rollout_func=answers,
    args=GRPOConfig(
        "runs/grpo_served",
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=16,
        learning_rate=1e-3,
        logging_steps=1,
        report_to="none",
        bf16=False,
    ),
    train_dataset=Dataset.from_dict({"prompt": prompts}),
    peft_config=MoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model(f"{adapters}/policy")
