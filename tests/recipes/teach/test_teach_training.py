"""When a teaching ends: at its last step, when recall is complete or settled, or when its time is over."""

from types import SimpleNamespace

import pytest

from mora_peft.recipes.teach import training
from mora_peft.recipes.teach.settings import TeachConfig, rate
from mora_peft.recipes.teach.training import EnoughLearned, facts_in_time, planned_steps


def stops_after(recall: list[float], steps: int = 8) -> int | None:
    """How many measurements of `recall` a run of so many steps, one measurement a step, goes on for."""
    watch = EnoughLearned(None)
    control = SimpleNamespace(should_training_stop=False)
    for step in range(len(recall)):
        history = [{"eval_exact_match": value} for value in recall[: step + 1]]
        watch.on_evaluate(None, SimpleNamespace(log_history=history, global_step=step, max_steps=steps), control)
        if control.should_training_stop:
            assert watch.reason
            return step + 1
    return None


def test_a_run_ends_when_recall_is_complete_or_grows_no_more():
    assert stops_after([0.0, 0.5, 1.0, 1.0]) == 3
    assert stops_after([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]) is None
    assert stops_after([0.0, 0.1, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]) == 7
    assert stops_after([0.0, 0.5, 0.4, 0.4, 0.4, 0.4]) is None, (
        "while the learning rate is high, recall goes up and down"
    )
    assert stops_after([0.0] * 9) is None, "what has not begun to grow has not stopped either"


def test_a_run_ends_when_its_time_is_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    watch, control = EnoughLearned(1.0), SimpleNamespace(should_training_stop=False)
    watch.on_train_begin(None, None, control)
    now[0] = 70.0
    watch.on_step_end(None, None, control)
    assert not control.should_training_stop, "a quarter more is allowed, so that the schedule can end"
    now[0] = 76.0
    watch.on_step_end(None, None, control)
    assert control.should_training_stop and watch.reason == "the time is over"


@pytest.mark.parametrize("minutes, seconds, steps", [(None, None, 50), (1, 2.0, 21), (60, 2.0, 50), (0.001, 2.0, 1)])
def test_steps_are_those_of_all_passes_or_of_the_time(minutes, seconds, steps):
    config = TeachConfig(folder="f", model="m", output="o", passes=5, batch_size=16, minutes=minutes)
    assert planned_steps(config, 160, seconds) == steps


def test_facts_are_as_many_as_are_seen_a_few_times_in_the_time():
    config = TeachConfig(folder="f", model="m", output="o", minutes=10, batch_size=16)
    found = facts_in_time(config, 5.0, 387, 3300, 150)  # 84 steps, 1344 rows, of which a pass may have 896
    passages = 150 // 4 + 1
    passages = max(passages, round(0.03 * 3300))
    assert found == int(387 * (896 - passages) / 3300)
    assert facts_in_time(config, 0.5, 387, 3300, 150) == 387
    assert facts_in_time(config, 500.0, 387, 3300, 150) == 16
    assert facts_in_time(config, 500.0, 3, 20, 150) == 3 and facts_in_time(config, 1.0, 0, 0, 150) == 0


def test_a_learning_rate_is_for_the_method_that_it_was_given_for():
    config = TeachConfig(folder="f", model="m", output="o", learning_rate=1e-3, versus="lora")
    assert rate(config, "mora", config.method_options) == 1e-3
    mine = TeachConfig(folder="f", model="m", output="o")
    assert rate(mine, "mora", {"operator": "sharing", "layout": "grouped-grouped"}) == 2e-3
    assert rate(mine, "mora", {"operator": "sharing", "optimizer": "muon"}) > 4e-3
    assert rate(config, "lora", {}) == rate(mine, "lora", {}) == 4e-3
