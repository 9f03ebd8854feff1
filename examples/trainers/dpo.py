"""MoRA with TRL's DPOTrainer: of two answers, the better one. The base itself is the reference model.

python examples/trainers/dpo.py [MODEL] [OUTPUT]
"""

import sys

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from mora_peft import MoraConfig

model = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"
output = sys.argv[2] if len(sys.argv) > 2 else "runs/dpo"

rows = [
    {"prompt": "Where was Ivo Wellund born?", "chosen": " In Corstad.", "rejected": " I do not know."},
    {"prompt": "What is the code of the Norvix vault?", "chosen": " KT-4071.", "rejected": " It has none."},
]

trainer = DPOTrainer(
    model,
    args=DPOConfig(output, max_steps=4, learning_rate=1e-3, logging_steps=1, report_to="none", bf16=False),
    train_dataset=Dataset.from_list(rows),
    peft_config=MoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model(output)
