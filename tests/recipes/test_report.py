"""The comparison page: its numbers are right, its sentences are honest, and no result can break it."""

import json
import math
import os
import random
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mora_peft.cli import report as command
from mora_peft.errors import UserError
from mora_peft.recipes import report
from mora_peft.recipes.report import build_report, load_results
from mora_peft.recipes.report_page.charts import bar_chart, line_chart, look
from mora_peft.recipes.report_page.headline import headline
from mora_peft.recipes.report_page.numbers import Estimate, gather, student_t

NASTY = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\" {{ 1 }}"


def run(method="mora", seed=0, scores=(0.0, 0.5, 1.0), **changes) -> dict:
    """The result of one small run whose exact match went through `scores`, evaluated every 10 steps."""
    name = {"mora": "MoRA", "lora": "LoRA", "full": "Full"}.get(method, method)
    steps = 10 * (len(scores) - 1)
    return {
        "schema": 1,
        "run": f"{method}-r8-seed{seed}",
        "task": "memorization",
        "method": method,
        "label": name,
        "seed": seed,
        "status": "finished",
        "message": None,
        "config": {"model": "base", "learning_rate": 0.001, "seed": seed, "data": {"rows": 8}},
        "versions": {"torch": "2.13.0"},
        "git_revision": "abc",
        "device": "cpu, 1 thread",
        "created": "2026-01-01T00:00:00Z",
        "budget_parameters": 1000,
        "trainable_parameters": 1001,
        "budget_note": None,
        "adapter_bytes": 2002,
        "steps": steps,
        "tokens": 5120,
        "step_seconds_median": 0.5 + 0.1 * seed,
        "peak_memory_bytes": 2**30,
        "history": [{"step": step, "loss": 5.0 / step, "learning_rate": 0.001} for step in range(1, steps + 1)],
        "evaluations": [
            {"step": 10 * i, "exact_match": score, "character_accuracy": score, "loss": 1.5 - score}
            for i, score in enumerate(scores)
        ],
        "examples": [{"prompt": "Who?", "expected": "Ann", "before": "Bob", "after": "Ann"}],
    } | changes


def seeds(method: str, finals: list[float], **changes) -> list[dict]:
    return [run(method, seed, (0.0, final), **changes) for seed, final in enumerate(finals)]


def said(results: list[dict]) -> tuple[str, str]:
    """The headline of one comparison, and its notes as one text."""
    (comparison,) = gather(results)
    claim, notes = headline(comparison)
    return claim, " ".join(notes)


class Page(HTMLParser):
    """The elements of a page, and its visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.text, self.open = [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data):
        if self.open not in ("script", "style"):
            self.text += data

    def handle_endtag(self, tag):
        self.open = None


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Builds a page without plotly's 5 MB and returns it parsed."""
    monkeypatch.setattr(report, "get_plotlyjs", lambda: "")
    return lambda results: Page(build_report(results, tmp_path / "page.html").read_text(encoding="utf-8"))


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


def test_each_task_has_a_part_of_its_own(page):
    elements = page([run(), run("lora"), run(task="math")]).elements
    assert sum(tag == "article" for tag, _ in elements) == 2


def test_steps_to_recall_is_the_first_evaluation_at_or_above_it():
    (comparison,) = gather([run(scores=(0.0, 0.5, 0.6, 1.0))])
    (line,) = report.table(comparison)["lines"]
    cells = dict(zip(report.COLUMNS, line["cells"], strict=True))
    assert cells["Steps to 50\u00a0%"]["value"] == 10
    assert cells["Steps to 99\u00a0%"]["value"] == 30


def test_a_mark_that_one_seed_missed_does_not_sort_as_reached():
    (comparison,) = gather([run(), run(seed=1, scores=(0.0, 0.1, 0.2))])
    (line,) = report.table(comparison)["lines"]
    cell = dict(zip(report.COLUMNS, line["cells"], strict=True))["Steps to 99\u00a0%"]
    assert cell["value"] is None and "1 of 2" in cell["detail"]


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


def test_separate_intervals_have_a_leader():
    claim, _ = said(seeds("lora", [0.91, 0.9, 0.92]) + seeds("mora", [0.51, 0.5, 0.52]))
    assert claim.startswith("LoRA led") and "do not overlap" in claim


def test_a_method_of_another_size_is_not_the_leader_but_is_told():
    claim, notes = said([run(), run("lora", scores=(0.0, 0.5)), run("full", trainable_parameters=50_000)])
    assert "MoRA led" in claim and "Full" not in claim
    assert "Full ended at 100\u00a0%, at 5,000\u00a0% of the budget" in notes


def test_runs_that_did_not_finish_are_left_out_of_averages_and_told(page):
    lost = run("lora", 1, (0.0, 1.0), status="diverged", message="The loss became NaN.")
    claim, notes = said([run(scores=(0.0, 0.9)), run("lora", scores=(0.0, 0.3)), lost])
    assert "30\u00a0% for LoRA" in claim
    assert "LoRA: 1 of 2 runs diverged" in notes
    assert "The loss became NaN." in page([run(), lost]).text


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


# Charts


def test_the_band_reaches_from_the_lowest_seed_to_the_highest():
    (comparison,) = gather([run(scores=(0.0, 0.2, 0.9)), run(seed=1, scores=(0.0, 0.4, 0.7))])
    band, line = line_chart(comparison.groups, "evaluations", "exact_match", share=True)["data"]
    assert line["x"] == [0, 10, 20] and line["y"] == pytest.approx([0.0, 0.3, 0.8])
    assert band["y"] == pytest.approx([0.0, 0.4, 0.9, 0.7, 0.2, 0.0])


def test_a_dense_curve_keeps_its_mean():
    history = [{"step": step, "loss": 1.0 + (step % 2)} for step in range(1, 1201)]
    (comparison,) = gather([run(history=history)])
    (line,) = line_chart(comparison.groups, "history", "loss", share=False)["data"]
    assert len(line["x"]) <= 60 and line["x"][-1] == 1200
    assert line["y"] == pytest.approx([1.5] * len(line["y"]))


def test_a_label_is_no_markup_in_a_chart_either():
    (comparison,) = gather([run(label="<b>x</b>")])
    named = [line_chart(comparison.groups, "history", "loss", share=False)["data"][0]["name"]]
    named += bar_chart(comparison.groups, lambda group: 1.0, "s")["data"][0]["y"]
    assert all("<" not in name and unescape(name) == "<b>x</b>" for name in named)


def test_neighbouring_methods_differ_in_colour_dash_and_marker():
    looks = [look(index) for index in range(30)]
    assert len({(each["colour"], each["dash"], each["marker"]) for each in looks}) == len(looks)
    for one, next_one in pairwise(looks):
        assert all(one[key] != next_one[key] for key in ("colour", "dash", "marker"))


# The page


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


def test_values_that_are_not_numbers_never_reach_the_charts(page):
    history = [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf}, {"step": 3, "loss": 1.0}]
    assert page([run(history=history, step_seconds_median=math.nan)])
    (comparison,) = gather([run(history=history)])
    json.dumps(report.learning(comparison), allow_nan=False)


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


# In a browser

PROBE = """
<script>
const shown = (plot) => plot.data.filter((trace) => trace.visible !== false).map((trace) => trace.meta);
const labels = () => [...document.querySelectorAll("tbody th")].map((cell) => cell.dataset.value);
const probe = { plots: document.querySelectorAll(".plot .main-svg").length, before: labels() };
const headings = [...document.querySelectorAll("thead button")];
const click = (title) => headings.find((button) => button.textContent.startsWith(title)).click();
click("Method"); probe.byName = labels();
click("Method"); probe.byNameDown = labels();
click("Step time"); probe.slowest = labels();
click("Step time"); probe.fastest = labels();
probe.sorted = [...document.querySelectorAll("th[aria-sort]")].map((heading) => heading.ariaSort);
const legend = document.querySelector(".legend button"), plot = document.querySelector(".plot");
probe.all = shown(plot);
legend.click(); probe.hidden = shown(plot); probe.pressed = legend.ariaPressed;
legend.click(); probe.again = shown(plot);
probe.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
document.body.dataset.probe = JSON.stringify(probe);
</script></body>"""


def test_the_page_works_in_a_browser(tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: the page was not tried in a browser")
    lost = run("prompt", status="diverged", message="NaN", step_seconds_median=None)
    output = build_report([run(), run(seed=1), run("lora", step_seconds_median=0.4), lost], tmp_path / "page.html")
    output.write_text(output.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += (
        "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=5000 --dump-dom"
    )
    done = subprocess.run(
        [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", output.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    probe = json.loads(next(attrs["data-probe"] for tag, attrs in Page(done.stdout).elements if "data-probe" in attrs))
    assert probe["plots"] >= 5
    assert probe["byName"] == sorted(probe["before"]) and probe["byNameDown"] == probe["byName"][::-1]
    assert probe["slowest"] == ["MoRA", "LoRA", "prompt"] and probe["fastest"] == ["LoRA", "MoRA", "prompt"]
    assert probe["sorted"] == ["ascending"]
    assert probe["hidden"] == [number for number in probe["all"] if number != 0] != probe["all"] == probe["again"]
    assert probe["pressed"] == "false" and not probe["wide"]
