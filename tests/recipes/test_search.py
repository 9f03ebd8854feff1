"""The search of learning rates: as many trials for each method, on rows of their own, and the best one is used."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest

from mora_peft.errors import UserError
from mora_peft.recipes import processes, search
from mora_peft.recipes.compare import CompareConfig, Contender, _searched, compare, plan
from mora_peft.recipes.train import TrainConfig, train


@pytest.mark.parametrize("trials", range(1, 7))
def test_rates_are_a_factor_of_two_apart_around_the_first_guess(trials):
    rates = search.rates(3e-3, trials)
    assert len(rates) == trials and 3e-3 in rates
    assert all(math.isclose(b / a, 2) for a, b in pairwise(rates))
    assert abs(rates.index(3e-3) - (trials - 1) / 2) <= 0.5


def test_the_best_is_the_lowest_loss_of_those_that_finished():
    def trial(rate, score):
        return {"learning_rate": rate, "score": score}

    assert search.best([trial(1, 0.5), trial(2, None), trial(3, 0.2)]) == 3
    assert search.best([trial(1, None)]) is None


def test_trials_differ_in_the_learning_rate_only_and_never_see_the_test(settings):
    trials = search.trial_runs(TrainConfig(**settings, learning_rate=1e-2), [5e-3, 1e-2, 2e-2], steps=2)
    assert all(trial.trial and trial.steps == 2 for trial in trials)
    assert [trial.learning_rate for trial in trials] == [5e-3, 1e-2, 2e-2]
    assert len({trial.output for trial in trials}) == 3
    assert {trial.seed for trial in trials}.isdisjoint({0, 1, 2})


def test_a_rate_is_tried_with_several_seeds_on_rows_of_their_own(settings):
    trials = search.trial_runs(TrainConfig(**settings, learning_rate=1e-2), [5e-3, 1e-2], seeds=3)
    assert [trial.learning_rate for trial in trials] == [rate for rate in [5e-3, 1e-2] for _ in range(3)]
    assert len({trial.output for trial in trials}) == 6 and len({trial.seed for trial in trials}) == 3
    alone = search.trial_runs(TrainConfig(**settings, learning_rate=1e-2), [5e-3, 1e-2])
    assert alone == trials[::3], "the first seed's trials are those of a search with one seed"


def test_a_rate_scores_the_mean_of_its_trials_and_nothing_where_one_is_lost(settings):
    trials = search.trial_runs(TrainConfig(**settings, learning_rate=1e-2), [5e-3, 1e-2], seeds=2)
    ends = [("finished", 0.1), ("diverged", 9.0), ("finished", 0.2), ("finished", 0.6)]
    for trial, (status, loss) in zip(trials, ends, strict=True):
        Path(trial.output).mkdir(parents=True)
        run = {"status": status, "evaluations": [{"step": 0, "loss": 5.0}, {"step": 4, "loss": loss}]}
        (Path(trial.output) / "run.json").write_text(json.dumps(run))
    lost, kept = search.scores(trials)
    assert (lost["status"], lost["score"], lost["scores"]) == ("diverged", None, [0.1])
    assert kept["score"] == pytest.approx(0.4) and kept["scores"] == [0.2, 0.6]
    assert search.best([lost, kept]) == 1e-2


@pytest.mark.parametrize(
    ("optimum", "tried"),
    [
        (1e-2, [5e-3, 1e-2, 2e-2]),  # in the middle from the start
        (2.5e-3, [1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2]),
        (8e-2, [5e-3, 1e-2, 2e-2, 4e-2, 8e-2]),  # at the edge still, and two more are all that was asked for
        (None, [1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2]),  # all diverge
    ],
)
def test_a_search_goes_on_past_the_edge_where_the_best_lies(settings, monkeypatch, optimum, tried):
    def run_all(trials, jobs):
        for trial in trials:
            Path(trial.output).mkdir(parents=True)
            loss = optimum and abs(math.log(trial.learning_rate / optimum))
            run = {"status": "diverged" if loss is None else "finished", "evaluations": [{"step": 7, "loss": loss}]}
            (Path(trial.output) / "run.json").write_text(json.dumps(run))
            done.append(trial.learning_rate)

    done = []
    monkeypatch.setattr("mora_peft.recipes.compare.run_all", run_all)
    methods = [Contender(method="mora", learning_rate=1e-2)]
    config = CompareConfig(**settings, methods=methods, trials=3, trials_beyond=2)
    [found] = _searched(config, plan(config), jobs=1).values()
    assert [trial["learning_rate"] for trial in found] == sorted(done) == pytest.approx(tried)
    assert search.best(found) == (optimum and pytest.approx(optimum))


def test_a_comparison_searches_reports_and_repeats_nothing(settings, monkeypatch):
    monkeypatch.setattr(processes._Fleet, "_train", lambda self, run: train(run))  # a process each: test_compare.py
    contender = Contender(method="mora", learning_rate=1e-2)
    settings |= {"steps": 3, "jobs": 1}  # two at once in one process would disturb each other's default dtype
    config = CompareConfig(**settings, methods=[contender], trials=2, trial_steps=3, trial_seeds=2)
    compare(config)
    [run] = [json.loads((Path(run.output) / "run.json").read_text()) for run in plan(config)]
    assert [trial["learning_rate"] for trial in run["search"]] == search.rates(1e-2, 2)
    assert all(len(trial["scores"]) == 2 for trial in run["search"])
    assert run["config"]["learning_rate"] == search.best(run["search"])
    trials = sorted(Path(config.output).glob("search/*/run.json"))
    assert len(trials) == 4
    measured = [[entry["step"] for entry in json.loads(file.read_text())["evaluations"]] for file in trials]
    assert measured == [[3]] * 4, "only what counts is measured"
    assert not list(Path(config.output).glob("search/*/adapter")), "a trial's weights are of no use"
    times = [file.stat().st_mtime_ns for file in trials]
    compare(config)
    assert [file.stat().st_mtime_ns for file in trials] == times


def test_a_negative_number_of_trials_is_refused(settings):
    with pytest.raises(UserError, match="trials"):
        CompareConfig(**settings, trials=-1)
    with pytest.raises(UserError, match="trial_seeds"):
        CompareConfig(**settings, trials=2, trial_seeds=0)
    with pytest.raises(UserError, match="trials_beyond"):
        CompareConfig(**settings, trials_beyond=1)
