"""MoRA with TRL's GRPOTrainer: the model's own answers, rewarded. Here a short answer is a good one.

python examples/trainers/grpo.py [MODEL] [OUTPUT]
"""

import sys

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from mora_peft import MoraConfig

model = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"
output = sys.argv[2] if len(sys.argv) > 2 else "runs/grpo"

prompts = ["Name a river.", "Name a colour.", "Name a fruit.", "Name a city."]


def is_short(completions: list[str], **_) -> list[float]:
    return [-float(len(completion)) for completion in completions]


trainer = GRPOTrainer(
    model,
    reward_funcs=is_short,
    args=GRPOConfig(
        output,
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
trainer.save_model(output)
