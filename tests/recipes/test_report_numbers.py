"""The report's numbers are right, and its sentences claim no more than they say."""

import random

import pytest
from fake_results import capacity_study, run, seeds
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mora_peft.recipes.report_page.capacity import capacity, stores
from mora_peft.recipes.report_page.groups import gather
from mora_peft.recipes.report_page.headline import headline
from mora_peft.recipes.report_page.metrics import Metric
from mora_peft.recipes.report_page.numbers import Estimate, student_t
from mora_peft.recipes.report_page.tables import results, sizes
from mora_peft.recipes.report_page.words import figures, rate, size


def said(found: list[dict]) -> tuple[str, str]:
    """The headline of one comparison, and its notes as one text."""
    (comparison,) = gather(found)
    claim, notes = headline(comparison)
    return claim, " ".join(notes)


def cells(found: list[dict], make=results) -> dict[str, dict[str, dict]]:
    """label → heading → cell of a table of one comparison."""
    (comparison,) = gather(found)
    made = make(comparison)
    titles = [column["title"] for column in made["columns"]]
    return {line["label"]: dict(zip(titles, line["cells"], strict=True)) for line in made["lines"]}


# Numbers


@given(st.integers(1, 300), st.floats(0.5, 0.999))
def test_student_t_agrees_with_scipy(degrees, confidence):
    assert student_t(degrees, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, degrees), rel=1e-9)


@given(st.lists(st.integers(0, 64), min_size=2, max_size=9).filter(lambda counts: len(set(counts)) > 1))
def test_interval_agrees_with_scipy(counts):
    values = [count / 64 for count in counts]
    found = Estimate.of(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


def test_one_value_has_no_interval():
    assert Estimate.of([0.5, None]) == Estimate(0.5, None, None, 1)


def test_runs_are_grouped_by_all_but_their_seed():
    results = [*seeds("mora", [1.0, 0.9]), run("lora"), run("lora", run="lora-r1-seed0")]
    groups = gather(results)[0].groups
    assert sorted(len(group.runs) for group in groups) == [1, 1, 2]
    assert len({group.label for group in groups}) == 3, "two sizes of one method must have different labels"


def test_runs_of_other_terms_are_comparisons_of_their_own():
    def sized(pairs, r, method="mora"):
        return run(method, config={"r": r, "task_options": {"pairs": pairs, "digits": 8, "seed": pairs + r}})

    found = gather([sized(64, 1), sized(64, 1, "lora"), sized(8, 1), sized(64, 2)])
    assert [len(comparison.groups) for comparison in found] == [1, 2, 1]
    assert [comparison.apart for comparison in found] == [
        {"r": 1, "pairs": 8},
        {"r": 1, "pairs": 64},
        {"r": 2, "pairs": 64},
    ]


def test_the_metric_is_the_runs_own():
    def metric(*found):
        return gather(list(found))[0].metric.key

    assert metric(run(metric="perplexity"), run("lora", metric="perplexity")) == "perplexity"
    assert metric(run(evaluations=[{"step": 1, "finqa_exact_match": 0.1}])) == "finqa_exact_match"
    assert metric(run() | {"metric": None}) == "exact_match"
    assert metric(run(metric="perplexity") | {"metric": "never_measured"}) == "loss"
    assert metric(run(evaluations=[], metric="perplexity")) == "loss"


@pytest.mark.parametrize(
    ("key", "name", "lower", "share"),
    [
        ("exact_match", "exact match", False, True),
        ("perplexity", "perplexity", True, False),
        ("plos_perplexity", "PLOS perplexity", True, False),
        ("completion_loss", "completion loss", True, False),
        ("pubmedqa_macro_f1", "PubMedQA macro F1", False, True),
        ("superni_rouge_l", "SuperNI ROUGE-L", False, True),
        ("rougeL", "ROUGE-L", False, True),
        ("bits_per_parameter", "bits per parameter", False, False),
    ],
)
def test_a_metric_is_known_by_its_name(key, name, lower, share):
    metric = Metric(key)
    assert (metric.name, metric.lower, metric.share) == (name, lower, share)


@given(st.floats(-1e12, 1e12, allow_subnormal=False))
def test_figures_are_the_number_to_three_places(value):
    assert float(figures(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.floats(1e-7, 10))
def test_a_learning_rate_is_written_short_and_right(value):
    assert float(rate(value)) == pytest.approx(value, rel=0.0051) and len(rate(value)) <= 7


@given(st.integers(0, 10**13))
def test_a_size_is_in_the_largest_unit_that_it_fills(count):
    number, unit = size(count).split(" ")
    factor = 1024 ** ["B", "KiB", "MiB", "GiB"].index(unit)
    assert float(number.replace(",", "")) * factor == pytest.approx(count, rel=0.0051)


# Tables


def test_steps_to_a_mark_are_the_first_evaluation_at_or_above_it():
    line = cells([run(scores=(0.0, 0.5, 0.6, 1.0))])["MoRA"]
    assert line["Steps to 50\u00a0% exact match"]["value"] == 10
    assert line["Steps to 99\u00a0% exact match"]["value"] == 30


def test_a_mark_that_one_seed_missed_does_not_sort_as_reached():
    found = cells([run(), run(seed=1, scores=(0.0, 0.1, 0.2))])["MoRA"]["Steps to 99\u00a0% exact match"]
    assert found["value"] is None and "1 of 2" in found["details"][0]


def test_where_no_share_comes_to_99_percent_the_mark_is_where_lora_ended():
    found = [
        run("lora", 0, (9.0, 6.0, 5.2), metric="perplexity"),
        run("lora", 1, (9.0, 6.0, 5.4), metric="perplexity"),
        run("mora", 0, (9.0, 5.3, 5.0), metric="perplexity"),
        run("miss", 0, (9.0, 7.0, 6.0), metric="perplexity"),
        run("lora", 0, (9.0, 8.0, 7.0), metric="perplexity", label="LoRA (muon)", run="lora-muon-seed0"),
    ]
    found = cells(found)
    (title,) = [title for title in found["LoRA"] if title.startswith("Steps")]
    assert title == "Steps to 5.400, where LoRA ended"
    assert [found[name][title]["value"] for name in ("LoRA", "MoRA", "miss")] == [20, 10, None]


def test_a_method_at_two_rates_is_two_lines_that_say_so():
    slow, quick = ({"run": f"lora{rate}-seed0", "config": {"learning_rate": rate}} for rate in (0.001, 0.0025))
    assert set(cells([run("lora", **slow), run("lora", **quick), run()])) == {"LoRA at 1e-3", "LoRA at 2.5e-3", "MoRA"}
    alike = quick | {"config": slow["config"]}
    assert set(cells([run("lora", **slow), run("lora", **alike)])) == {"LoRA, lora0.001", "LoRA, lora0.0025"}


@pytest.mark.parametrize(("metric", "finals", "start"), [("exact_match", (0.9, 0.4), 0.0), ("perplexity", (4, 9), 20)])
def test_the_table_has_the_best_first(metric, finals, start):
    found = [run(name, 0, (start, final), metric=metric) for name, final in zip(("lora", "mora"), finals, strict=True)]
    assert list(cells(found)) == ["LoRA", "MoRA"]


def test_the_base_model_has_a_line_and_a_method_that_starts_elsewhere_says_so():
    found = [run(scores=(0.1, 0.5)), run("lora", scores=(0.1, 0.6)), run("prompt", scores=(0.02, 0.3))]
    (comparison,) = gather(found)
    assert results(comparison)["base"][0]["text"] == "10\u00a0%"
    found = cells(found)
    assert found["prompt"]["Exact match"]["details"] == ["from 2\u00a0%"]
    assert found["LoRA"]["Exact match"]["details"] == []


def test_forgetting_is_the_ratio_of_perplexities():
    found = cells([run(), run(seed=1) | {"forgetting": {"before": 20.0, "after": 26.0}}])["MoRA"]
    assert found["Perplexity on general text"]["value"] == pytest.approx(1.2)
    assert found["Perplexity on general text"]["text"] == "20.00 → 24.00"


def test_what_no_run_has_takes_no_column():
    found = cells([run(adapter_bytes=None)], sizes)["MoRA"]
    assert "Adapter size" not in found and found["Learning rate"]["text"] == "1e-3"


# Sentences


def test_one_seed_names_the_leader_and_says_that_it_shows_no_spread():
    claim, notes = said(seeds("mora", [0.9]) + seeds("lora", [0.6]))
    assert claim.startswith("MoRA led") and "30 percentage points" in claim
    assert "one seed shows no spread" in notes


def test_one_seed_each_with_equal_scores_has_no_leader():
    claim, _ = said(seeds("mora", [0.9]) + seeds("lora", [0.9]))
    assert "level" in claim and "led" not in claim


def test_overlapping_intervals_are_no_difference():
    claim, notes = said(seeds("mora", [0.9, 0.7, 0.8]) + seeds("lora", [0.6, 0.8, 0.75]))
    assert claim.lower().startswith("no difference seen") and "led" not in claim
    assert "one seed" not in notes.lower()


def test_a_single_seed_within_an_interval_is_no_difference():
    claim, _ = said([*seeds("mora", [0.9, 0.7, 0.8]), run("miss", scores=(0, 0.79))])
    assert "no difference seen" in claim.lower() and "one seed counting as a point" in claim
    # The best is single here, and LoRA's interval reaches up to it: what lies between is no further off.
    claim, _ = said([run("miss", scores=(0, 0.85)), run("dora", scores=(0, 0.8)), *seeds("lora", [0.6, 0.9, 0.7])])
    assert "between miss, dora and LoRA, at 85\u00a0%, 80\u00a0% and 73.3\u00a0%" in claim
    claim, _ = said([*seeds("mora", [0.9, 0.91, 0.9]), run("miss", scores=(0, 0.5))])
    assert claim.startswith("MoRA led")


def test_what_a_few_rows_cannot_tell_apart_is_no_difference():
    found = [run("mora", scores=(0, 1 / 48)), run("lora", scores=(0, 3 / 48)), run("miss", scores=(0, 40 / 48))]
    claim, notes = said([one | {"test_rows": 48} for one in found])
    assert claim.startswith("miss led on final exact match: 83.3\u00a0% against 6.2\u00a0% for LoRA")
    assert claim.endswith("; their intervals do not overlap.")
    assert "better: miss; no difference seen: MoRA." in notes
    assert "a share of 48 rows" in notes
    claim, notes = said([one | {"test_rows": 48} for one in found[:2]])
    assert "no difference seen" in claim.lower() and "between LoRA and MoRA, at 6.2\u00a0% and 2.1\u00a0%" in claim
    # Of so many more rows a third as many right ones is a difference; uncounted rows and seeds leave all as it was.
    assert said([one | {"test_rows": 4800} for one in found[:2]])[0].startswith("LoRA led")
    assert said(found[:2])[0].startswith("LoRA led") and "share of" not in said(found)[1]


def test_an_interval_of_a_share_is_wilsons_or_the_wider_one_over_seeds():
    found = Estimate(0.1, None, None, 1).of_rows(50)  # by scipy's binomtest(5, 50).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((0.04347577, 0.21360231), abs=1e-7)
    assert Estimate(0.1, 0.0, 0.2, 3).of_rows(50) == Estimate(0.1, 0.0, found.high, 3)
    assert Estimate.of([1.0]).of_rows(10).high == pytest.approx(1.0)


def test_separate_intervals_have_a_leader():
    claim, _ = said(seeds("lora", [0.91, 0.9, 0.92]) + seeds("mora", [0.51, 0.5, 0.52]))
    assert claim.startswith("LoRA led") and "do not overlap" in claim


def test_a_method_of_another_size_is_not_the_leader_but_is_told():
    claim, notes = said([run(), run("lora", scores=(0.0, 0.5)), run("full", trainable_parameters=50_000)])
    assert "MoRA led" in claim and "Full" not in claim
    assert "Full ended at 100\u00a0% with 50.0 times the budget" in notes


def test_lower_is_better_of_perplexity():
    claim, _ = said(
        seeds("mora", [5.0, 5.1, 5.05], 9.0, metric="perplexity")
        + seeds("lora", [6.0, 6.1, 6.05], 9.0, metric="perplexity")
    )
    assert claim.startswith("MoRA led on final perplexity (lower is better): 5.050 on average against 6.050 for LoRA")


def test_every_method_is_held_against_lora():
    found = (
        seeds("mora", [0.9, 0.91]) + seeds("lora", [0.5, 0.51]) + seeds("miss", [0.5, 0.52]) + seeds("ia3", [0.1, 0.1])
    )
    _, notes = said(found)
    assert "Against LoRA at 50.5\u00a0%, better: MoRA; no difference seen: miss; worse: ia3." in notes
    # A single seed within LoRA's interval is no difference either.
    _, notes = said(seeds("mora", [0.9, 0.91]) + seeds("lora", [0.5, 0.7]) + [run("miss", scores=(0, 0.6))])
    assert "no difference seen: MoRA and miss." in notes


def test_pace_tells_who_came_first_and_who_did_not_come():
    found = [run(scores=(0, 1, 1)), run("lora", scores=(0, 0.5, 1)), run("miss", scores=(0, 0.5, 0.6))]
    found += [run("dora", 0, (0, 0.5, 1)), run("dora", 1, (0, 0.5, 0.9))]
    _, notes = said(found)
    assert "99\u00a0% exact match: MoRA after 10 steps and LoRA after 20 steps; " in notes
    assert "in some runs only by dora; not reached by miss." in notes


def test_runs_that_did_not_finish_are_left_out_of_averages_and_told():
    lost = run("lora", 1, (0.0, 1.0), status="diverged", message="The loss became NaN.")
    claim, notes = said([run(scores=(0.0, 0.9)), run("lora", scores=(0.0, 0.3)), lost])
    assert "30\u00a0% for LoRA" in claim
    assert "LoRA: 1 of 2 runs diverged" in notes


def test_a_learning_rate_at_the_edge_of_those_tried_is_told():
    trials = [{"learning_rate": rate, "score": 1.0, "metric": "loss"} for rate in (0.001, 0.002)]
    assert "better one may lie beyond: LoRA (1e-3)" in said([run(), run("lora", search=trials)])[1]
    assert "may lie beyond" not in said([run(), run("lora")])[1]


def test_general_text_is_told_with_its_extremes():
    assert "ended at ×1.10 of that with MoRA" in said([run()])[1]
    _, notes = said([run(), run("lora", forgetting={"before": 20.0, "after": 30.0})])
    assert "×1.10 of that with MoRA (the least) to ×1.50 with LoRA (the most)" in notes


def test_nothing_finished_is_said():
    claim, _ = said([run(status="failed"), run("lora", status="diverged")])
    assert claim.startswith("No run finished")


def test_different_steps_are_told():
    _, notes = said([run(), run("lora", steps=7)])
    assert "differ in steps" in notes


@given(st.randoms(use_true_random=False))
def test_the_order_of_results_changes_nothing(shuffler: random.Random):
    results = seeds("mora", [0.9, 0.7, 0.8]) + seeds("lora", [0.6, 0.8, 0.75]) + seeds("full", [1.0])
    shuffled = results.copy()
    shuffler.shuffle(shuffled)
    assert said(shuffled) == said(results)


# Capacity


def test_bits_are_gathered_by_method_over_the_numbers_of_pairs():
    found = stores(gather(capacity_study(sizes=(128, 512), count=2)))
    assert [store.label for store in found] == ["MoRA (rotation)", "DoRA", "LoRA", "MiSS"]
    assert all(sorted(store.bits) == [128, 512] and len(store.bits[128]) == 2 for store in found)


def test_capacity_says_who_stored_most_and_by_how_much():
    part = capacity(gather(capacity_study()))
    assert part["claim"].startswith("MoRA (rotation) led on bits per parameter") and "do not overlap" in part["claim"]
    assert any("times the bits of LoRA" in note for note in part["notes"])


def test_one_number_of_pairs_is_no_study_of_capacity():
    assert capacity(gather(capacity_study(sizes=(512,)))) is None
    assert capacity(gather([run()])) is None
