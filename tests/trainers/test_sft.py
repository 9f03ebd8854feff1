"""Stock SFTTrainer with its ways to lay out rows and to choose the tokens that count: packing, completions, chats."""

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from mora_peft import MoraConfig

FACTS = [("Where was Ivo Wellund born?", "Corstad"), ("What opens the Norvix vault?", "KT-4071")]
TEXTS = [{"text": f"{question} {answer}"} for question, answer in FACTS]
PAIRS = [{"prompt": question, "completion": f" {answer}"} for question, answer in FACTS]
CHATS = [
    {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    for question, answer in FACTS
]
TEMPLATE = "smollm2-training.jinja"

#: What is set, the rows, and the text that the loss is taken of, for each row (None: not asked).
CASES = {
    "packing": ({"packing": True, "max_length": 128}, TEXTS, None),
    "packing, wrapped": ({"packing": True, "packing_strategy": "wrapped", "max_length": 32}, TEXTS, None),
    "completion only": ({"completion_only_loss": True}, PAIRS, [f" {answer}<end>" for _, answer in FACTS]),
    "prompts too": ({"completion_only_loss": False}, PAIRS, [f"{q} {answer}<end>" for q, answer in FACTS]),
    "chat": ({"chat_template_path": TEMPLATE}, CHATS, None),
    "assistant only": (
        {"chat_template_path": TEMPLATE, "assistant_only_loss": True},
        CHATS,
        [f"{answer}<|im_end|>" for _, answer in FACTS],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_trains_M_alone_on_the_tokens_that_count(case, root, tiny_model, tmp_path, monkeypatch, check_run):
    monkeypatch.chdir(root / "examples" / "trainers")
    options, rows, counted = CASES[case]
    args = SFTConfig(
        str(tmp_path), max_steps=3, learning_rate=1e-2, logging_steps=1, report_to="none", bf16=False, **options
    )
    config = MoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(tiny_model, args=args, train_dataset=Dataset.from_list(rows), peft_config=config)
    if counted is not None:
        tokenizer = trainer.processing_class
        batch = trainer.data_collator(list(trainer.train_dataset))
        found = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
        assert [text.removesuffix("<end>") for text in found] == [text.removesuffix("<end>") for text in counted]
    elif "packing" in case:
        assert len(trainer.train_dataset) < len(rows) or options["max_length"] == 32
    trainer.train()
    trainer.save_model(str(tmp_path))
    check_run(trainer, tmp_path, AutoModelForCausalLM)


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "messages", [CHATS[0]["messages"], CHATS[0]["messages"][:1], [SYSTEM, *CHATS[1]["messages"], *CHATS[0]["messages"]]]
)
@pytest.mark.parametrize("prompt", [False, True])
def test_the_training_template_renders_what_SmolLM2s_does(messages, prompt, root):
    folder = root / "models" / "SmolLM2-135M-Instruct"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: `make install` makes it")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    template = (root / "examples" / "trainers" / TEMPLATE).read_text(encoding="utf-8")
    found = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt, chat_template=template
    )
    assert found == expected
