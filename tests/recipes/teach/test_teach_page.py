"""The proof in a real browser: its charts are drawn, its filter hides rows, it fits a phone, and logs no error."""

import pytest
from browser import needs_browser, probed

from mora_peft.recipes.teach.page import claim, notes, write_page


def score(exact: float, answer: str) -> dict:
    return {"answer": answer, "exact": exact, "f1": exact, "choice": 1.0}


def fake_proof() -> dict:
    """The proof of a teaching that never was, with one question right and one wrong."""
    questions = [
        {"question": "Who keeps the <vault>?", "source": "The vault is kept by Sara Moe.", "document": "vault.md",
         "kind": "name", "completion": "Sara Moe", "before": score(0, "I am"), "mora": score(1, "Sara Moe")},
        {"question": "When was it built?", "source": "It was built in 1912.", "document": "vault.md",
         "kind": "date", "completion": "1912", "before": score(0, ""), "mora": score(0, "1913")},
    ]  # fmt: skip
    mean = {"before": {"exact": 0.0, "f1": 0.0, "choice": 1.0}, "mora": {"exact": 0.5, "f1": 0.5, "choice": None}}
    counted = {who: {"vault.md": values | {"questions": 2}} for who, values in mean.items()}
    kinds = {who: {"name": values | {"questions": 2}} for who, values in mean.items()}
    method = {
        "label": "MoRA (rotation)", "method": "mora", "steps": 20, "planned_steps": 40, "stopped": "recall is complete",
        "learning_rate": 4e-3, "trainable_parameters": 1000, "step_seconds_median": 0.5,
        "evaluations": [{"step": step, "exact_match": step / 40} for step in (0, 10, 20)],
        "history": [{"step": step, "loss": 5 / step} for step in range(1, 21)],
        "forgetting": {"before": 10.0, "after": 12.0},
    }  # fmt: skip
    found = {"means": mean, "documents": counted, "kinds": kinds, "questions": questions}
    return {
        "model": "models/small", "config": {"general": None, "continue_from": None, "r": 8}, "device": "cpu",
        "files": [{"path": what, "what": what, "reason": "?"} for what in ("taken", "dropped")],
        "titles": {"vault.md": "The vault"}, "secrets": {"vault.md": {"password": 1}}, "facts": 2, "facts_found": 3,
        "rows": {"recall": 8}, "nearness": 0.25, "methods": [method], "sets": {"taught": found, "control": found},
        "versions": {"torch": "2"}, "git_revision": None,
    }  # fmt: skip


def test_the_headline_and_its_notes_say_what_was_measured():
    proof = fake_proof()
    assert claim(proof).startswith("MoRA (rotation) answers 50\u00a0% of 2 held-out questions")
    told = " ".join(notes(proof))
    second = proof["methods"][0] | {"label": "LoRA", "method": "lora", "forgetting": {"before": 10.0, "after": 11.0}}
    proof["sets"]["taught"]["means"]["lora"] = proof["sets"]["taught"]["means"]["mora"]
    with_another = " ".join(notes(proof | {"methods": [*proof["methods"], second]}))
    assert "by MoRA (rotation)" in with_another and "11.0 (×1.10) by LoRA" in with_another
    assert "this much was forgotten" in told and "25\u00a0%" in told and "1 further fact" in told


@needs_browser
@pytest.mark.parametrize("width", [390, 1000])
def test_the_page_works_in_a_browser(width, tmp_path):
    page = write_page(fake_proof(), tmp_path / "proof.html")
    script = """
    const shown = () => [...document.querySelectorAll(".asked tbody tr")].filter((row) => !row.hidden).length;
    probe.all = shown(); probe.drawn = document.querySelectorAll(".plot .main-svg").length;
    word.value = "SARA"; word.dispatchEvent(new Event("input")); probe.word = shown();
    word.value = ""; which.value = "0"; which.dispatchEvent(new Event("change")); probe.wrong = shown();
    probe.escaped = document.querySelector(".asked tbody th").textContent.includes("<vault>");
    probe.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
    """
    probe = probed(page, script, width)
    assert probe == {"all": 4, "drawn": probe["drawn"], "word": 2, "wrong": 2, "escaped": True, "wide": False}
    assert probe["drawn"] >= 2
