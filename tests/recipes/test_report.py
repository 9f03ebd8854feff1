"""The comparison page: all that a result can hold is on it, and no result can break it."""

import json
import math
import os
from html import unescape
from itertools import pairwise

import pytest
from fake_page import Page
from fake_results import capacity_study, run, study

from mora_peft.cli import report as command
from mora_peft.errors import UserError
from mora_peft.recipes import report
from mora_peft.recipes.report import build_report, load_results
from mora_peft.recipes.report_page import sections
from mora_peft.recipes.report_page.charts import bar_chart, line_chart, scatter_chart
from mora_peft.recipes.report_page.groups import gather
from mora_peft.recipes.report_page.looks import logarithmic, look
from mora_peft.recipes.report_page.metrics import Metric
from mora_peft.recipes.report_page.spectra import spectrum_charts, sweep_chart

NASTY = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\" {{ 1 }}"
LOSS, MATCH = Metric("loss"), Metric("exact_match")
EXAMPLE = {"prompt": "Who?", "expected": "Ann", "before": "Bob", "after": "Ann"}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Builds a page without plotly's 5 MB and returns it parsed."""
    monkeypatch.setattr(report, "get_plotlyjs", lambda: "")
    return lambda results: Page(build_report(results, tmp_path / "page.html").read_text(encoding="utf-8"))


def test_each_task_has_a_part_of_its_own(page):
    elements = page([run(), run("lora"), run(task="math")]).elements
    assert sum(tag == "article" for tag, _ in elements) == 2


# Charts


def test_the_band_reaches_from_the_lowest_seed_to_the_highest():
    (comparison,) = gather([run(scores=(0.0, 0.2, 0.9)), run(seed=1, scores=(0.0, 0.4, 0.7))])
    band, line = line_chart(comparison.groups, "evaluations", MATCH)["data"]
    assert line["x"] == [0, 10, 20] and line["y"] == pytest.approx([0.0, 0.3, 0.8])
    assert band["y"] == pytest.approx([0.0, 0.4, 0.9, 0.7, 0.2, 0.0])


def test_a_dense_curve_keeps_its_mean():
    history = [{"step": step, "loss": 1.0 + (step % 2)} for step in range(1, 1201)]
    (comparison,) = gather([run(history=history)])
    (line,) = line_chart(comparison.groups, "history", LOSS)["data"]
    assert len(line["x"]) <= 60 and line["x"][-1] == 1200
    assert line["y"] == pytest.approx([1.5] * len(line["y"]))


def test_a_label_is_no_markup_in_a_chart_either():
    (comparison,) = gather([run(label="<b>x</b>")])
    named = [line_chart(comparison.groups, "history", LOSS)["data"][0]["name"]]
    named += bar_chart(comparison.groups, lambda group: 1.0, "s")["data"][0]["y"]
    assert all("<" not in name and unescape(name) == "<b>x</b>" for name in named)


@pytest.mark.parametrize(
    ("values", "between"), [((171, 4375), "D2"), ((11, 99), "D2"), ((1, 1000), 1), ((1e-9, 1e3), 2)]
)
def test_a_logarithmic_axis_has_two_marks_at_least_and_few_of_them(values, between):
    assert logarithmic(values)["dtick"] == between


@pytest.mark.parametrize(
    ("model", "name"),
    [("models/SmolLM2-135M", "SmolLM2-135M"), ("configs/llama-small/config.json", "llama-small"), ("config.json",) * 2],
)
def test_a_model_is_called_by_its_own_name(model, name):
    (comparison,) = gather([run(config={"model": model})])
    assert name in report.facts(comparison)


def test_neighbouring_methods_differ_in_colour_dash_and_marker():
    looks = [look(index) for index in range(30)]
    assert len({(each["colour"], each["dash"], each["marker"]) for each in looks}) == len(looks)
    for one, next_one in pairwise(looks):
        assert all(one[key] != next_one[key] for key in ("colour", "dash", "marker"))


def test_a_curve_of_one_point_is_no_chart():
    (comparison,) = gather([run(evaluations=[{"step": 10, "exact_match": 1.0}])])
    assert line_chart(comparison.groups, "evaluations", MATCH) is None


def test_a_mark_of_the_scatter_is_a_mean_with_bars_to_its_seeds():
    found = [run(forgetting={"before": 10.0, "after": 11.0}, scores=(0.0, 0.8))]
    found += [run(seed=1, forgetting={"before": 10.0, "after": 13.0}, scores=(0.0, 0.6)), run("lora", forgetting=None)]
    (comparison,) = gather(found)
    (trace,) = scatter_chart(comparison)["data"]
    assert trace["x"] == pytest.approx([1.2]) and trace["y"] == pytest.approx([0.7])
    assert trace["error_x"]["array"] == pytest.approx([0.1]) and trace["error_y"]["arrayminus"] == pytest.approx([0.1])


def test_a_spectrum_is_drawn_from_its_largest_value_to_its_last_that_shows():
    values = [10.0 * 0.97**place for place in range(1000)]
    (comparison,) = gather([run(spectrum=[{"layer": "q", "singular_values": values}]), run("lora")])
    charts = {chart["title"]: chart["figure"] for chart in spectrum_charts(comparison.groups)}
    assert set(charts) == {"q", "layers.0.q_proj"}
    (trace,) = charts["q"]["data"]
    assert trace["x"][0] == 1 and trace["y"][0] == 10.0 and len(trace["x"]) <= 121
    assert trace["y"][-1] >= 10.0 * 1e-4 > 0.97 * trace["y"][-1]


def test_the_sweep_rings_the_rate_that_was_used_and_leaves_out_lost_trials():
    search = [
        {"learning_rate": 0.002, "score": None, "metric": "loss", "status": "diverged"},
        {"learning_rate": 0.001, "score": 0.2, "metric": "loss", "status": "finished"},
        {"learning_rate": 0.0005, "score": 0.4, "metric": "loss", "status": "finished"},
    ]
    (comparison,) = gather([run(search=search)])
    line, ring = sweep_chart(comparison.groups)["data"]
    assert (line["x"], line["y"]) == ([0.0005, 0.001], [0.4, 0.2]) and (ring["x"], ring["y"]) == ([0.001], [0.2])
    assert not line["error_y"]["visible"]
    assert "MoRA at 2e-3 diverged" in " ".join(sections.sweeps(comparison)["caption"])


def test_the_sweep_has_a_bar_over_the_seeds_of_a_rate():
    trials = ((0.001, 0.2, [0.1, 0.3]), (0.002, 0.5, [0.2, 0.8]))
    search = [{"learning_rate": rate, "score": score, "scores": scores} for rate, score, scores in trials]
    (comparison,) = gather([run(search=search)])
    bars = sweep_chart(comparison.groups)["data"][0]["error_y"]
    assert bars["visible"] and bars["array"] == pytest.approx([0.1, 0.3]) == bars["arrayminus"]
    assert "bars reach from the lowest" in " ".join(sections.sweeps(comparison)["caption"])


# The page


def test_a_study_has_every_section_and_every_number_of_it_is_sound(page):
    whole = page(study(count=1))
    learned = ("Results", "Learning", "Learned and forgotten", "Singular values of ΔW", "Search for the learning rate")
    for title in (*learned, "Time and memory", "Size and cost", "Before and after", "Settings and versions"):
        assert title in whole.text
    assert "NaN" not in whole.text.replace("The loss became NaN", "") and "None" not in whole.text


def test_a_study_of_capacity_opens_with_all_its_sizes(page):
    found = page(capacity_study(sizes=(128, 512), count=1))
    assert "memorization: capacity" in found.text.split("memorization, pairs 128")[0]
    assert sum(tag == "article" for tag, _ in found.elements) == 3


def test_only_where_texts_are_the_metric_is_an_answer_judged():
    def judged(metric):
        (comparison,) = gather([run(metric=metric), run("lora", metric=metric, examples=[EXAMPLE | {"after": "Eve"}])])
        (card,) = sections.examples(comparison)["first"]
        return {answer["label"]: answer["same"] for answer in card["after"]}

    assert judged("exact_match") == {"MoRA": True, "LoRA": False}
    assert judged("perplexity") == {"MoRA": None, "LoRA": None}


def test_the_page_needs_nothing_from_outside(tmp_path):
    html = build_report([run(), run("lora")], tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    links = [attrs[key] for _, attrs in Page(html).elements for key in ("src", "href") if attrs.get(key)]
    assert all(link.startswith("data:") for link in links)
    assert "Plotly.newPlot" in html and len(html) > 10**6, "plotly itself is in the page"


def test_text_cannot_become_markup(page):
    def poisoned(method: str) -> dict:
        example = dict.fromkeys(("prompt", "expected", "before", "after"), NASTY)
        return run(
            method,
            label=NASTY + method,
            message=NASTY,
            device=NASTY,
            task=NASTY,
            examples=[example],
            git_revision=NASTY,
        ) | {"config": {NASTY: NASTY, "model": NASTY}, "versions": {NASTY: NASTY}}

    results = [poisoned("mora"), poisoned("lora"), poisoned("lora") | {"run": "x", "status": NASTY}]
    poison, clean = page(results), page([run(), run("lora"), run("lora", run="x", status="failed")])
    count = lambda parsed, tag: sum(found == tag for found, _ in parsed.elements)  # noqa: E731
    for tag in ("script", "img"):
        assert count(poison, tag) == count(clean, tag)
    assert not any(key.startswith("on") for _, attrs in poison.elements for key in attrs)
    assert NASTY in poison.text, "the text itself is shown as it is"


@pytest.mark.parametrize("key", list(run()))
def test_partial_results_do_not_break_the_page(page, key):
    whole = run()
    partial = {name: value for name, value in whole.items() if name != key}
    wrong = [None, "text", math.nan, -1, [], {}, [None], [{}], [{"step": 1}]]
    for broken in (partial, *(whole | {key: value} for value in wrong)):
        assert "LoRA" in page([broken, run("lora")]).text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("forgetting", {"before": 0, "after": -1}),
        ("forgetting", {"before": "x"}),
        ("spectrum", [{"layer": None, "singular_values": [None, "x", -1, math.nan]}, {"singular_values": 3}]),
        ("spectrum", [{"layer": NASTY, "singular_values": [0.0]}, {"layer": NASTY, "singular_values": [2.0]}]),
        ("search", [{"learning_rate": None}, {"learning_rate": -1, "score": 1}, {"learning_rate": 1e-3, "score": "x"}]),
        ("config", {"r": "x", "task_options": [1], "learning_rate": "fast", "trial": "no"}),
        ("config", {"task_options": {"pairs": [], "digits": {"a": 1}}, "learning_rate": True}),
        ("evaluations", [{"step": 0, "a": 1, "": 2, "__": 3, "exact_match": math.inf}, {"step": 9, "__": 1, "": 2}]),
        ("metric", ["exact_match"]),
    ],
)
def test_broken_parts_of_a_result_do_not_break_the_page(page, key, value):
    assert "LoRA" in page([run() | {key: value}, run("lora")]).text


def test_values_that_are_not_numbers_never_reach_the_charts(page):
    history = [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf}, {"step": 3, "loss": 1.0}]
    assert page([run(history=history, step_seconds_median=math.nan)])
    (comparison,) = gather([run(history=history)])
    json.dumps(sections.learning(comparison), allow_nan=False)


def test_an_empty_result_and_an_empty_history_still_make_a_page(page):
    assert page([{}]).text
    assert "MoRA" in page([run(history=[], evaluations=[], examples=[])]).text


def test_no_results_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no result"):
        build_report([], tmp_path / "page.html")


def test_one_name_for_two_different_results_is_an_error_but_twice_the_same_is_one():
    assert len(gather([run(), run()])[0].runs) == 1
    with pytest.raises(UserError, match="mora-r8-seed0"):
        gather([run(), run(steps=1)])


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    output = build_report([run()], tmp_path / "page.html")
    before = output.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        build_report([run("lora")], output)
    assert output.read_bytes() == before and list(tmp_path.iterdir()) == [output]


# Results on disk and the command


def test_results_are_found_in_files_and_folders_once(tmp_path):
    for result in (run(), run("lora")):
        folder = tmp_path / "deep" / result["run"]
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(result))
    file = tmp_path / "deep" / "lora-r8-seed0" / "run.json"
    assert load_results([file]) == [run("lora")]
    assert len(load_results([tmp_path, file])) == 2


def test_results_in_a_folder_may_bear_their_runs_names_and_trials_are_passed_over(tmp_path):
    (tmp_path / "mora-r8-seed0.json").write_text(json.dumps(run()))
    (tmp_path / "other.json").write_text("{}")
    assert load_results([tmp_path]) == [run()]
    (tmp_path / "mora-r8-seed0.json").rename(tmp_path / "run.json")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "run.json").write_text(json.dumps(run(config={"trial": True})))
    assert load_results([tmp_path]) == [run()]


@pytest.mark.parametrize(
    ("content", "words"), [("{", "not the JSON"), ("[]", "list"), ('{"schema": 2}', "upgrade"), (None, "no file")]
)
def test_a_bad_result_is_named_in_one_sentence(tmp_path, capsys, content, words):
    file = tmp_path / "run.json"
    if content is not None:
        file.write_text(content)
    assert command.main([str(file), "--output", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert words in error and str(file) in error and error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_the_command_rebuilds_the_page(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps(run()))
    assert command.main([str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert "MoRA" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_pages_can_share_plotly(tmp_path):
    page = build_report([run(), run("lora")], tmp_path / "page.html", shared=True)
    assert page.stat().st_size < 1_000_000 < (tmp_path / "plotly.min.js").stat().st_size
    assert 'src="plotly.min.js"' in page.read_text(encoding="utf-8")
