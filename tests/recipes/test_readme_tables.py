"""The tables of results: made from the results that are committed, and nothing else of a page touched."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fake_results import capacity_study, run, seeds

from mora_peft.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = "Before.\n<!-- results:one:begin -->\nold\n<!-- results:one:end -->\nBetween.\n"
README += "<!-- results:two:begin -->\n<!-- results:two:end -->\nAfter.\n"


def load():
    file = ROOT / "benchmarks" / "readme_tables.py"
    sys.path.insert(0, str(file.parent))  # as Python does for a script
    spec = importlib.util.spec_from_file_location("readme_tables", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load()


@pytest.fixture
def folder(tmp_path):
    """Results of two studies: `one` of two methods, `two` of several numbers of pairs."""
    lost = run("lora", 3, status="diverged")
    write(tmp_path / "one", [*seeds("mora", [0.9, 0.92, 0.91]), run("lora", scores=(0.0, 0.5)), lost])
    write(tmp_path / "two", capacity_study(sizes=(128, 512), count=2))
    return tmp_path


def write(folder: Path, results: list[dict]) -> None:
    folder.mkdir()
    for number, result in enumerate(results):
        (folder / f"{number}.json").write_text(json.dumps(result))


def test_places_are_filled_and_nothing_else_is_touched(folder):
    filled = script.fill(README, folder, [])
    assert filled.startswith("Before.\n<!-- results:one:begin -->\n| method |") and filled.endswith("\nAfter.\n")
    assert "old" not in filled and "\n<!-- results:one:end -->\nBetween.\n<!-- results:two:begin -->\n|" in filled
    assert script.fill(filled, folder, []) == filled
    only = script.fill(README, folder, ["two"])
    assert "old" in only and script.fill(only, folder, ["one"]) == filled


def test_a_line_has_mean_and_half_width_or_says_that_it_is_one_seed(folder):
    table = script.tables(folder / "one").splitlines()
    header, _, base, mora, lora = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert header[:5] == ["method", "parameters", "learning rate", "rank of ΔW", "exact match"]
    assert base[:5] == ["base model", "–", "–", "–", "0 %"]
    # Half of the 95 % interval of 0.90, 0.91, 0.92 is t(2 degrees) = 4.303 times 0.01 / sqrt(3).
    assert mora[:5] == ["MoRA", "1,001", "1e-3", "3", "91 % ± 2.5 (3 seeds)"]
    assert lora[4] == "50 % (1 seed); 1 of 2 diverged"
    assert "20.00 → 22.00 (×1.10)" in mora


def test_a_task_that_asks_has_its_shares_beside_what_one_answer_always_comes_to(tmp_path):
    asked = {"quiz_accuracy": 0.4, "quiz_majority": 0.5, "quiz_macro_f1": 0.3, "books_perplexity": 30.0}
    evaluations = [{"step": step, "perplexity": 20.0 - step, "loss": 3.0, **asked} for step in (0, 10)]
    write(tmp_path / "asked", [run(task="biomedical", metric="perplexity", evaluations=evaluations)])
    header, _, base, mora = (line.strip("| ").split(" | ") for line in script.tables(tmp_path / "asked").splitlines())
    accuracy = "quiz accuracy (the same answer always: 50 %)"
    lower = "(lower is better)"
    assert header[4:8] == [f"perplexity {lower}", accuracy, "quiz macro F1", f"books perplexity {lower}"]
    assert base[4:8] == ["20.00", "40 %", "30 %", "30.00"] and mora[4:6] == ["10.00 (1 seed)", "40 % (1 seed)"]


def test_a_task_without_a_perplexity_has_its_loss_which_the_summary_shows_of_problems_too_hard(tmp_path):
    evaluations = [{"step": step, "exact_match": 0.0, "loss": 3.0 - step / 10} for step in (0, 10)]
    write(tmp_path / "math", [run(method="lora", task="math", evaluations=evaluations)])
    header, _, base, lora = (line.strip("| ").split(" | ") for line in script.tables(tmp_path / "math").splitlines())
    assert header[4:6] == ["exact match", "loss (lower is better)"]
    assert base[4:6] == ["0 %", "3.000"] and lora[4:6] == ["0 % (1 seed)", "2.000 (1 seed)"]
    line = script.summary(tmp_path).splitlines()[-1]
    assert "| loss (lower is better) | 3.000 |" in line and "| 2.000 (1 seed) |" in line


def test_a_rank_counts_what_is_above_1_percent_of_the_largest_in_the_middle_layer(tmp_path):
    spectrum = [
        {"layer": f"layers.{place}", "singular_values": values, "r_hat": None}
        for place, values in enumerate(([2.0] * 9, [3.0, 1.0, 0.04, 0.02], [1.0]))
    ]
    write(tmp_path / "one", [run(spectrum=spectrum), run("lora", spectrum=None)])
    _, _, _, mora, lora = (line.strip("| ").split(" | ") for line in script.tables(tmp_path / "one").splitlines())
    assert (mora[3], lora[3]) == ("3", "–")


def test_the_summary_has_a_line_for_each_study_that_has_results(tmp_path):
    write(tmp_path / "memorization-speed", [*seeds("lora", [0.9, 0.92, 0.91]), run("miss", label="MiSS")])
    readme = "<!-- results:summary:begin -->\n<!-- results:summary:end -->"
    header, _, line = (row.strip("| ").split(" | ") for row in script.fill(readme, tmp_path, []).splitlines()[1:-1])
    cells = dict(zip(header, line, strict=True))
    assert cells["measured"] == "exact match" and cells["before"] == "0 %" and cells["LoRA"] == "91 % ± 2.5"
    assert cells["MiSS"].endswith("(1 seed)") and cells["DoRA"] == "–"


def test_the_summary_has_a_further_line_for_what_muon_trained(tmp_path):
    by_adamw = [run("lora"), run(label="MoRA (sharing)")]
    by_muon = [run("lora-muon", label="LoRA (muon)", scores=(0.0, 0.7)), run("m", label="MoRA (sharing, muon)")]
    write(tmp_path / "memorization-speed", [*by_adamw, *by_muon])
    header, _, adamw, muon = (row.strip("| ").split(" | ") for row in script.summary(tmp_path).splitlines())
    assert muon[0] == f"{adamw[0]}, by Muon"
    ends = [dict(zip(header, row, strict=True)) for row in (adamw, muon)]
    assert [(end["LoRA"], end["MoRA (sharing)"], end["MiSS"]) for end in ends] == [
        ("100 % (1 seed)", "100 % (1 seed)", "–"),
        ("70 % (1 seed)", "100 % (1 seed)", "–"),
    ]


def test_a_study_of_capacity_has_a_column_for_each_number_of_pairs(folder):
    first, *others = script.tables(folder / "two").split("\n\n")
    assert "| bits per trainable parameter | 128 pairs | 512 pairs |" in first and "| LoRA |" in first
    assert [text for text in others if text.endswith(":")] == ["memorization, pairs 128:", "memorization, pairs 512:"]


def test_a_study_without_a_place_or_without_results_is_named(folder):
    with pytest.raises(UserError, match="three"):
        script.fill(README, folder, ["three"])
    with pytest.raises(UserError, match="one"):
        script.fill(README, folder / "one", [])


def test_serving_has_a_column_for_each_way_that_was_measured_and_a_dash_for_what_is_missing(tmp_path):
    def part(few: float, many: float) -> dict:
        runs = [{"adapters": count, "cold": cold, "first_token_seconds": {"p50": 0.25}}
                for count, cold in ((2000, True), (5, False), (2000, False))]  # fmt: skip
        memory = {"started": 1e9, "all_loaded": 11e9}
        rates = {"5": few, "2000": many}
        return {"requests_per_second": rates, "remaining": many / few, "runs": runs, "resident_bytes": memory}

    scale = tmp_path / "serving_scale"
    write(scale, [])
    (tmp_path / "serving_batch.json").write_text(
        json.dumps({"results": {"over_base": {"plugin rotation": 0.95, "stock lora": 0.4}, "limit": 0.97}})
    )
    (scale / "rotation.json").write_text(json.dumps({"results": part(5.0, 4.75)}))
    readme = "<!-- results:serving:begin -->\n<!-- results:serving:end -->"
    table = script.fill(readme, tmp_path, []).splitlines()[1:-1]
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    rotation = [line[header.index("MoRA (rotation)")] for line in lines]
    assert rotation == ["0.95", "0.97", "5.00", "4.75", "0.95", "0.25", "5.00"]
    assert header[2:] == ["LoRA, vLLM alone"]
    assert [line[2] for line in lines] == ["0.40", "0.97", "–", "–", "–", "–", "–"]
    # Slow ways have a table of their own, once all of it is measured.
    for name, rate in (("beside", 4.0), ("converted", 0.1), ("peft", 1.0)):
        assert "the same machine" not in script.fill(readme, tmp_path, [])
        (scale / f"{name}.json").write_text(json.dumps({"results": {"requests_per_second": {"5": rate}}}))
    assert "| requests/s, over MoRA (rotation) here | 0.025 | 0.250 |" in script.fill(readme, tmp_path, [])


@pytest.mark.parametrize("page", script.PAGES, ids=lambda page: page.name)
def test_a_page_holds_the_committed_results(page):
    text = page.read_text(encoding="utf-8")
    assert script.fill(text, RESULTS, []) == text, "run python benchmarks/readme_tables.py"
    assert text.count("<!-- results:") == 2 * len(script.PLACE.findall(text)), "a place lacks its begin or its end"
