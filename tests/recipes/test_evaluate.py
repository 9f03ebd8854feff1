"""`mora evaluate`: every task's tests on a saved adapter, and the way to lm-evaluation-harness."""

import json
import sys
import types
from importlib.util import find_spec

import pytest
import torch

from mora_peft.errors import UserError
from mora_peft.recipes import evaluate, harness
from mora_peft.recipes.evaluate import EvaluateConfig
from mora_peft.recipes.measures.choice import choice, options_of
from mora_peft.recipes.measures.perplexity import perplexity
from mora_peft.recipes.models import load_base
from mora_peft.recipes.tasks import task_named, task_options

QUESTIONS = [
    {"prompt": f"Is {number} even?\nA. yes\nB. no\nAnswer:", "completion": "BA"[number % 2 == 0], "choices": ["y", "n"]}
    for number in range(6)
]


@pytest.fixture
def measured(tiny_model, tmp_path):
    """The result of `mora evaluate` on the tiny model."""

    def run(**options) -> dict:
        output = tmp_path / "result.json"
        evaluate.evaluate(EvaluateConfig(**{"model": tiny_model, "dtype": "float32", "output": str(output), **options}))
        return json.loads(output.read_text())

    return run


@pytest.fixture
def files(tmp_path):
    """A file of texts and one of questions, with the rows."""
    texts = [{"text": f"A text with the number {number}."} for number in range(5)]
    for name, rows in (("texts", texts), ("questions", QUESTIONS)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return str(tmp_path / "texts.jsonl"), str(tmp_path / "questions.jsonl")


def test_all_tests_of_a_task_are_measured(measured, files, tiny_model):
    from datasets import Dataset

    from mora_peft.recipes.data import load_texts

    texts, questions = files
    result = measured(task="biomedical", task_options={"texts": texts, "medmcqa": questions}, rows=4)
    model, tokenizer = load_base(tiny_model, torch.float32)
    chosen, _ = choice(model, tokenizer, Dataset.from_list([options_of(row) for row in QUESTIONS[:4]]))
    assert result["metrics"]["medmcqa_accuracy"] == chosen["accuracy"]
    expected = perplexity(model, tokenizer, load_texts(texts).select(range(4)))
    assert result["metrics"]["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert [answer["expected"] for answer in result["answers"]] == ["A", "B", "A", "B"]
    assert {answer["test"] for answer in result["answers"]} == {"medmcqa"} and result["rows"] == 4


def test_data_is_measured_in_place_of_the_tasks_own(measured, files):
    texts, _ = files
    result = measured(task="biomedical", data=texts, task_options={"texts": "gone.jsonl"})
    assert result["rows"] == 5 and result["metrics"]["perplexity"] > 1


def test_memorization_makes_its_rows(measured):
    options = {"facts": 3, "pairs": 4, "digits": 4, "bits": True}
    result = measured(task="memorization", task_options=options, rows=2)
    [_, bits] = task_named("memorization").tests(task_options("memorization", options))
    assert result["rows"] == 2 and len(bits.limited(2).rows) == 4  # a sum is over all pairs
    assert result["metrics"]["bits"] == 0 <= result["metrics"]["exact_match"]


def test_bits_need_made_pairs(tmp_path):
    from mora_peft.recipes.tasks.memorization import make, tests

    options = task_options("memorization", {"bits": True})
    with pytest.raises(UserError, match="made pairs"):
        tests(options, make(options).select_columns(["prompt", "completion"]))
    with pytest.raises(UserError, match="made pairs"):
        tests(task_options("memorization", {"bits": True, "pairs": 0, "facts": 3}), None)


def test_rows_without_a_task_have_a_loss_and_recall(measured, files):
    texts, questions = files
    assert set(measured(data=texts)["metrics"]) == {"loss", "perplexity"}
    assert set(measured(data=questions)["metrics"]) == {"loss", "perplexity", "exact_match", "character_accuracy"}


def test_something_must_be_measured():
    with pytest.raises(UserError, match="--lm-eval"):
        EvaluateConfig(model="m")


def test_a_missing_harness_is_named(measured, monkeypatch):
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed.*mora-peft\[lm-eval\]"):
        measured(lm_eval="arc_easy", model="no/such/model")


def test_what_goes_to_the_harness_and_comes_back(measured, monkeypatch):
    """Against a stand-in with the harness's interface; below it is the real one, where that is installed."""
    seen = {}

    class HFLM:
        def __init__(self, **options):
            seen.update(options)

    class TaskManager:
        def __init__(self, include_path):
            assert include_path is None

        def match_tasks(self, names):
            return [name for name in names if name != "arc_hart"]

    def simple_evaluate(lm, **options):
        seen.update(options)
        return {"results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.5, "exact_match_stderr,none": 0.1,
                                      "acc,none": 1}}}  # fmt: skip

    modules = {
        "lm_eval": {"simple_evaluate": simple_evaluate},
        "lm_eval.models": {},
        "lm_eval.models.huggingface": {"HFLM": HFLM},
        "lm_eval.tasks": {"TaskManager": TaskManager},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(harness, "find_spec", lambda name: True)
    result = measured(lm_eval="gsm8k, arc_easy", rows=7, batch_size=3)
    assert result["metrics"] == {"gsm8k_exact_match_strict-match": 0.5, "gsm8k_acc": 1.0}
    assert seen["tasks"] == ["gsm8k", "arc_easy"] and (seen["limit"], seen["batch_size"]) == (7, 3)
    assert isinstance(seen["pretrained"], torch.nn.Module)
    with pytest.raises(UserError, match="no task arc_hart"):
        measured(lm_eval="gsm8k,arc_hart")


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed")
def test_the_harness_agrees_with_our_own_choice(measured, tmp_path, files):
    """A task of the harness in a local file, whose accuracy is that of the same questions measured here."""
    _, questions = files
    file = tmp_path / "even.yaml"
    file.write_text(
        "task: even_numbers\ndataset_path: json\noutput_type: multiple_choice\ntest_split: train\n"
        f"dataset_kwargs: {{data_files: {questions}}}\n"
        'doc_to_text: "{{prompt}}"\ndoc_to_target: "{{completion}}"\ndoc_to_choice: [A, B]\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    result = measured(lm_eval=str(file), task="memorization", task_options={"pairs": 2})
    options = {"texts": files[0], "medmcqa": questions}
    own = measured(task="biomedical", task_options=options)["metrics"]["medmcqa_accuracy"]
    assert result["metrics"]["even_numbers_acc"] == own


@pytest.mark.parametrize("content, words", [(None, "could not be read"), ("group: x\n", "no line `task: NAME`")])
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed")
def test_bad_task_files_are_named(content, words, tmp_path):
    file = tmp_path / "x.yaml"
    if content:
        file.write_text(content)
    with pytest.raises(UserError, match=words):
        harness.measure_by_harness(None, None, [str(file)])
