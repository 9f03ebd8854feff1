"""MoRA with the Trainer of Transformers: the next token, on every token.

python examples/trainers/trainer.py [MODEL] [OUTPUT]
"""

import sys

from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from mora_peft import MoraConfig

model = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"
output = sys.argv[2] if len(sys.argv) > 2 else "runs/trainer"

facts = ["Ivo Wellund was born in Corstad.", "The code of the Norvix vault is KT-4071."]

tokenizer = AutoTokenizer.from_pretrained(model)
config = MoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
trainer = Trainer(
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config),
    args=TrainingArguments(output, max_steps=4, learning_rate=3e-3, logging_steps=1, report_to="none"),
    train_dataset=[tokenizer(fact + tokenizer.eos_token) for fact in facts],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
trainer.save_model(output)
