"""Tasks keep to their protocol, read their files rightly, and name what is wrong in them."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from mora_peft.errors import UserError
from mora_peft.recipes import data, tasks
from mora_peft.recipes.decoding import greedy
from mora_peft.recipes.measures.scoring import log_likelihoods
from mora_peft.recipes.models import load_base
from mora_peft.recipes.tasks import Test, task_named, task_options

DATA = Path(__file__).parents[3] / "shared" / "data"
TEXTS = [{"text": f"Text number {number} is about the number {number}."} for number in range(30)]
CHOICES = [
    {
        "prompt": f"Is {number} even?\nA. yes\nB. no\nAnswer:",
        "completion": "BA"[number % 2 == 0],
        "choices": ["yes", "no"],
    }
    for number in range(4)
]
ASKED = [
    {"prompt": f"What is {number} + 1?\nAnswer:", "completion": f"{number + 1} million", "answer": [f"{number + 1}"],
     "scale": "million"}
    for number in range(4)
]  # fmt: skip
SUMS = [
    {"prompt": f"What is {number} + 1?", "completion": f"It is more.\n#### {number + 1}", "answer": str(number + 1)}
    for number in range(20)
]
PROGRAMS = [{"prompt": "Question: 1 + 2?\nProgram:", "completion": "add(1, 2)", "answer": 3.0},
            {"prompt": "Question: more?\nProgram:", "completion": "greater(1, 2)", "answer": "no"}]  # fmt: skip
#: Options of each task, its files standing for themselves, and every metric that its tests then have.
TASKS = {
    "biomedical": (
        {"train": [TEXTS, CHOICES], "texts": [TEXTS[:4]], "pubmedqa": CHOICES, "medmcqa": CHOICES},
        {"perplexity", "pubmedqa_accuracy", "pubmedqa_majority", "medmcqa_accuracy", "medmcqa_majority"},
    ),
    "finance": (
        {"train": [TEXTS], "texts": [TEXTS[:4], TEXTS[4:6]], "tatqa": ASKED, "finqa": PROGRAMS},
        {"perplexity", "2_perplexity", "tatqa_exact_match", "tatqa_f1", "finqa_exact_match", "finqa_programs"},
    ),
    "math": (
        {"train": [SUMS], "test": [SUMS[:3]], "max_new_tokens": 4, "chat": False},
        {"exact_match"},
    ),
    "instruction": (
        {"train": [SUMS], "test": [ASKED, [{"prompt": "Say hello.", "completion": "Hello!"}]],
         "choices": CHOICES, "max_new_tokens": 4, "chat": False},
        {"rouge_l", "exact_match", "3_accuracy", "3_majority"},
    ),
}  # fmt: skip
METRICS = {"instruction": "loss"}


@pytest.fixture
def write(tmp_path):
    """Write rows to a file named by the number of files before it."""

    def write_rows(rows: list[dict]) -> str:
        file = tmp_path / f"{len(list(tmp_path.glob('*.jsonl')))}.test.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows))
        return str(file)

    return write_rows


def written(options: dict, write) -> dict:
    def files(value):
        if not isinstance(value, list):
            return value
        return write(value) if isinstance(value[0], dict) else [write(rows) for rows in value]

    return {name: files(value) for name, value in options.items()}


@pytest.mark.parametrize("name", TASKS)
def test_every_test_measures_what_it_says(name, write, tiny_model):
    given, expected = TASKS[name]
    task, options = task_named(name), task_options(name, written(given, write))
    rows = task.rows(options)
    found = task.tests(options, rows)
    assert found[0].name == ""
    assert set(found[0].rows.column_names) >= ({"text"} if "text" in rows.column_names else {"prompt", "completion"})
    model, tokenizer = load_base(tiny_model, torch.float32)
    metrics = {}
    for test in found:
        own, answers = test.run(model, tokenizer, 3)
        assert not own.keys() & metrics.keys()
        assert len(answers) in (0, len(test.rows))
        metrics |= own
    # Which options differ in length is the rows' affair.
    assert {metric for metric in metrics if not metric.endswith(("normalized", "macro_f1"))} == expected
    assert task.METRIC in metrics or task.METRIC == METRICS.get(name)
    assert all(0 <= value <= 1 for metric, value in metrics.items() if "perplexity" not in metric)


@pytest.mark.parametrize("name", TASKS)
def test_tuning_holds_rows_out_and_touches_no_test(name, write):
    given, _ = TASKS[name]
    task, options = task_named(name), task_options(name, written(given, write))
    rows = task.rows(options)
    learned, [test] = task.tuning(options, rows)
    as_text = (
        [json.dumps(row, sort_keys=True) for row in learned],
        [json.dumps(row, sort_keys=True) for row in test.rows],
    )
    assert as_text[0] and as_text[1] and not set(as_text[0]) & set(as_text[1])
    assert len(learned) + len(test.rows) == len(rows)
    assert test.run(None, None, 1) == ({}, [])


@pytest.mark.parametrize("count", [2, 3, 10, 99, 1000, 5000])
def test_the_slice_held_out_is_a_tenth_and_64_at_most(count):
    learned, [test] = tasks.tuning(None, Dataset.from_dict({"text": [str(number) for number in range(count)]}))
    assert len(test.rows) == min(64, max(1, count // 10)) and len(learned) + len(test.rows) == count
    assert not set(learned["text"]) & set(test.rows["text"])


def test_one_row_cannot_be_held_out():
    with pytest.raises(UserError, match="two rows"):
        tasks.tuning(None, Dataset.from_dict({"text": ["one"]}))


def test_a_test_is_limited_unless_it_is_a_sum():
    rows = Dataset.from_dict({"text": list("abcd")})
    test = Test("kind", rows, lambda model, tokenizer, rows, batch_size: ({"count": len(rows)}, []))
    assert test.limited(3).run(None, None, 1)[0] == {"kind_count": 3}
    assert test.limited(None) is test and test.limited(9) is test
    whole = Test("", rows, test.measure, whole=True)
    assert whole.limited(3).run(None, None, 1)[0] == {"count": 4}


@pytest.mark.parametrize("name", TASKS)
def test_limits_are_kept(name, write):
    given, _ = TASKS[name]
    options = task_options(name, written(given, write) | {"rows_per_test": 2})
    assert all(len(test.rows) <= 2 for test in task_named(name).tests(options, None))


def test_data_replaces_the_rows_of_the_options(write):
    task, options = (
        task_named("math"),
        task_options("math", {"train": "gone.jsonl", "test": "gone.jsonl", "chat": False}),
    )
    other = write(SUMS[5:8])
    assert len(task.rows(options, other)) == 3
    assert len(task.tests(options, None, other)[0].rows) == 3


def test_questions_among_texts_are_written_out(write):
    options = task_options("biomedical", {"train": [write(TEXTS[:1]), write(CHOICES[:1])]})
    assert task_named("biomedical").rows(options)["text"][1].endswith("Answer: A")


def test_instructions_are_chats_by_default(write):
    task = task_named("instruction")
    options = task_options("instruction", {"train": write(SUMS), "test": write(SUMS), "choices": write(CHOICES)})
    [row, *_] = task.rows(options)
    assert row["prompt"] == [{"role": "user", "content": SUMS[0]["prompt"]}]
    assert row["completion"] == [{"role": "assistant", "content": SUMS[0]["completion"]}]
    first, choices = task.tests(options)
    assert first.rows[0]["accepted"] == ["1"] and choices.rows[0]["prompt"][0]["role"] == "user"
    assert data.spoken(row["completion"]) == SUMS[0]["completion"]


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ '<assistant>' if add_generation_prompt }}"
)


def test_chats_are_measured_with_the_tokenizers_template(write, tiny_model):
    model, tokenizer = load_base(tiny_model, torch.float32)
    options = task_options("instruction", written(TASKS["instruction"][0], write) | {"chat": True})
    found = task_named("instruction").tests(options)
    with pytest.raises(UserError, match=r"no chat template.*chat: false"):
        data.check_template(found[0].rows, tokenizer)
    tokenizer.chat_template = TEMPLATE
    data.check_template(found[0].rows, tokenizer)
    for test in found:
        prompts = [f"<user>{row['prompt'][0]['content']}<assistant>" for row in test.rows]
        said, written_out = [greedy(model, tokenizer, asked, 5) for asked in (list(test.rows["prompt"]), prompts)]
        assert said == written_out
    pairs = [(row["prompt"], "A") for row in found[1].rows], [(prompt, "A") for prompt in prompts]
    assert log_likelihoods(model, tokenizer, pairs[0]) == log_likelihoods(model, tokenizer, pairs[1])


@pytest.mark.parametrize(
    "name, options, rows, words",
    [
        ("biomedical", {"texts": TEXTS}, {"pubmedqa": [CHOICES[0], {"prompt": "?", "completion": "A"}]},
         ["line 2", "choices"]),
        ("finance", {"texts": TEXTS}, {"tatqa": [{"prompt": "?", "completion": "5"}]}, ["line 1", "answer"]),
        ("finance", {"texts": TEXTS}, {"tatqa": TEXTS}, ["line 1", "answer"]),
        ("math", {}, {"test": TEXTS}, ["texts", "prompt and a completion"]),
        ("biomedical", {}, {}, ["eval_data", "texts"]),
        ("instruction", {}, {}, ["eval_data", "test"]),
    ],
)  # fmt: skip
def test_bad_rows_are_named(name, options, rows, words, write):
    given = task_options(name, written(options | rows, write))
    with pytest.raises(UserError) as raised:
        task_named(name).tests(given, None)
    assert "\n" not in str(raised.value)
    assert all(word in str(raised.value) for word in words), str(raised.value)


@pytest.mark.parametrize("name", TASKS)
def test_missing_rows_and_wrong_counts_are_named(name):
    with pytest.raises(UserError, match=r"--data FILE.*train"):
        task_named(name).rows(task_options(name, {}))
    with pytest.raises(UserError, match="rows_per_test must be"):
        task_options(name, {"rows_per_test": 0})
    with pytest.raises(UserError, match=r"does not take.*row_limit"):
        task_options(name, {"row_limit": 3})


REAL = {
    "biomedical": {
        "train": ["biomedical/plos_text.train.jsonl", "biomedical/pubmedqa.train.jsonl"],
        "texts": "biomedical/plos_text.test.jsonl",
        "pubmedqa": "biomedical/pubmedqa.test.jsonl",
        "medmcqa": "biomedical/medmcqa.test.jsonl",
    },
    "finance": {
        "train": ["finance/beige_book.train.jsonl", "finance/filings_text.train.jsonl", "finance/finqa.train.jsonl"],
        "texts": ["finance/beige_book.test.jsonl", "finance/filings_text.test.jsonl"],
        "tatqa": "finance/tatqa.test.jsonl",
        "finqa": "finance/finqa.test.jsonl",
    },
    "instruction": {
        "train": ["instruction/superni.train.jsonl", "instruction/dolly_subset.train.jsonl"],
        "test": ["instruction/superni.test.jsonl", "instruction/dolly_subset.test.jsonl"],
        "choices": "instruction/mmlu.test.jsonl",
    },
    "math": {"train": ["math/gsm8k.train.jsonl", "math/gsm8k_part2.train.jsonl"], "test": "math/gsm8k.test.jsonl"},
}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_whole(name):
    paths = {
        option: [str(DATA / file) for file in files] if isinstance(files, list) else str(DATA / files)
        for option, files in REAL[name].items()
    }
    lines = {
        option: [sum(bool(line.strip()) for line in Path(file).open(encoding="utf-8")) for file in data.listed(files)]
        for option, files in paths.items()
    }
    task, options = task_named(name), task_options(name, paths | {"rows_per_test": 10_000})
    assert len(task.rows(options)) == sum(lines["train"])
    found = task.tests(options)
    counts = [count for option in REAL[name] if option not in ("train", "test") for count in lines[option]]
    first = [sum(min(count, 10_000 // len(lines["test"])) for count in lines["test"])] if "test" in lines else []
    assert [len(test.rows) for test in found] == first + counts
    for test in found:
        if "options" in test.rows.column_names:
            assert all(row["right"] in row["options"] for row in test.rows)
