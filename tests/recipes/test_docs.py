"""The guides do what they say: their Python runs, their commands parse, their links lead somewhere."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page that are in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.split("  #")[0]
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.splitlines()
    if line.startswith("mora ")
]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page, "python"))
    exec(compile(code.replace(MODEL, tiny_model), page.name, "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_the_guides_has_options_that_exist(command, monkeypatch):
    from mora_peft.cli._parser import parse

    monkeypatch.chdir(ROOT)
    _, name, *words = shlex.split(command)
    module = import_module(f"mora_peft.cli.{name}")
    parsed = []
    monkeypatch.setattr(
        module,
        "run_command",
        lambda name, config, recipe, argv, positional=False: parsed.append(parse(name, config, argv, positional)),
    )
    module.main(words)
    assert parsed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (page.parent / target).is_file()]
