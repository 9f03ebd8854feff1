"""MoRA with TRL's SFTTrainer: answers to questions, the loss on the answers only.

python examples/trainers/sft.py [MODEL] [OUTPUT]
"""

import sys

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from mora_peft import MoraConfig

model = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"
output = sys.argv[2] if len(sys.argv) > 2 else "runs/sft"

rows = [
    {"prompt": "Where was Ivo Wellund born?", "completion": " Corstad"},
    {"prompt": "What is the code of the Norvix vault?", "completion": " KT-4071"},
]

trainer = SFTTrainer(
    model,
    args=SFTConfig(output, max_steps=4, learning_rate=3e-3, logging_steps=1, report_to="none", bf16=False),
    train_dataset=Dataset.from_list(rows),
    peft_config=MoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model(output)
