"""MoRA with TRL's RewardTrainer: a model that gives the better of two answers the higher number.

python examples/trainers/reward.py [MODEL] [OUTPUT]
"""

import sys

from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from mora_peft import MoraConfig

model = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"
output = sys.argv[2] if len(sys.argv) > 2 else "runs/reward"

rows = [
    {"prompt": "Where was Ivo Wellund born?", "chosen": " In Corstad.", "rejected": " I do not know."},
    {"prompt": "What is the code of the Norvix vault?", "chosen": " KT-4071.", "rejected": " It has none."},
]

trainer = RewardTrainer(
    model,
    args=RewardConfig(output, max_steps=4, learning_rate=1e-3, logging_steps=1, report_to="none", bf16=False),
    train_dataset=Dataset.from_list(rows),
    # The head that gives the number is new: it is trained whole, and saved with the adapter.
    peft_config=MoraConfig(r=8, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"]),
)
trainer.train()
trainer.save_model(output)
