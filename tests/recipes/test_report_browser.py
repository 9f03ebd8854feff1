"""The page in a real browser: it sorts, its legend hides and shows, it fits a phone, and logs no error."""

import browser
from fake_results import capacity_study, run, study

from mora_peft.recipes.report import build_report

pytestmark = browser.needs_browser
PHONE = 390  # CSS pixels


def probed(results: list[dict], script: str, tmp_path, width: int = 1000) -> dict:
    """What `script` finds on the page of `results`."""
    return browser.probed(build_report(results, tmp_path / "page.html"), script, width)


def test_a_heading_sorts_its_column_the_best_first(tmp_path):
    lost = run("prompt", status="diverged", message="NaN", step_seconds_median=None)
    found = [run(scores=(0.0, 0.9)), run(seed=1, scores=(0.0, 0.9)), run("lora", step_seconds_median=0.4), lost]
    probe = probed(
        found,
        """
        const table = document.querySelectorAll("table")[1], first = document.querySelector("table");
        const labels = (table) =>
          [...table.querySelectorAll("tbody:last-of-type th")].map((cell) => cell.dataset.value);
        const click = (table, title) =>
          [...table.querySelectorAll("thead button")].find((button) => button.textContent.startsWith(title)).click();
        probe.start = labels(first);
        click(first, "Exact match"); probe.worst = labels(first);
        click(first, "Method"); probe.byName = labels(first);
        click(first, "Method"); probe.byNameDown = labels(first);
        click(table, "Step time"); probe.fastest = labels(table);
        click(table, "Step time"); probe.slowest = labels(table);
        probe.sorted = [...table.querySelectorAll("th[aria-sort]")].map((heading) => heading.ariaSort);
        probe.base = first.tBodies[0].rows[0].cells[0].textContent;
        """,
        tmp_path,
    )
    assert probe["start"] == ["LoRA", "MoRA", "prompt"] and probe["worst"] == ["MoRA", "LoRA", "prompt"]
    assert probe["byName"] == sorted(probe["start"], key=str.casefold) == probe["byNameDown"][::-1]
    assert probe["fastest"] == ["LoRA", "MoRA", "prompt"] and probe["slowest"] == ["MoRA", "LoRA", "prompt"]
    assert probe["sorted"] == ["descending"]
    assert "Base model" in probe["base"], "the base model's line stays on top"


def test_a_legend_hides_and_shows_a_method_in_all_charts_of_its_part(tmp_path):
    probe = probed(
        [*study(count=1, points=4, steps=40)[:8], run(task="pretraining"), run("lora", task="pretraining")],
        """
        const shown = (plot) =>
          plot.data.filter((trace) => trace.visible !== false && "meta" in trace).map((trace) => trace.meta);
        const [part, other] = document.querySelectorAll("article");
        const all = () => [...part.querySelectorAll(".plot")].map(shown);
        const [one] = part.querySelectorAll(".legend button"), hide = part.querySelector(".legend .all");
        const elsewhere = [...other.querySelectorAll(".plot")].map(shown).flat().length;
        probe.drawn = [...document.querySelectorAll(".plot")].every((plot) => plot.querySelector(".main-svg"));
        probe.all = all();
        one.click(); probe.hidden = all(); probe.pressed = one.ariaPressed;
        probe.same = [...part.querySelectorAll('.legend [data-number="0"]')].map((button) => button.ariaPressed);
        one.click(); probe.again = all();
        hide.click(); probe.none = all(); probe.label = hide.textContent;
        probe.others = [...other.querySelectorAll(".plot")].map(shown).flat().length === elsewhere;
        hide.click(); probe.back = all();
        """,
        tmp_path,
    )
    assert probe["drawn"] and any(0 in plot for plot in probe["all"])
    assert probe["hidden"] == [[number for number in plot if number != 0] for plot in probe["all"]]
    assert probe["pressed"] == "false" and set(probe["same"]) == {"false"} and len(probe["same"]) > 1
    assert probe["again"] == probe["back"] == probe["all"] and probe["label"] == "Show all"
    assert not any(probe["none"]) and probe["others"], "other parts of the page keep their methods"


def test_nothing_is_wider_than_a_phone(tmp_path):
    probe = probed(
        study(count=1, points=4, steps=40) + capacity_study(sizes=(128, 512), count=1),
        """
        const page = document.documentElement;
        probe.wide = page.scrollWidth > page.clientWidth;
        probe.screen = innerWidth;
        probe.over = [...document.querySelectorAll("figure, .legend, h1, .card, ul")]
          .filter((element) => element.getBoundingClientRect().right > page.clientWidth + 1)
          .map((element) => element.className);
        """,
        tmp_path,
        PHONE,
    )
    assert probe["screen"] == PHONE and not probe["wide"] and probe["over"] == []
