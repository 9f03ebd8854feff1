"""The demo: compare, merge, ask, and do nothing twice."""

import pytest

from mora_peft.cli.demo import demo
from mora_peft.errors import UserError
from mora_peft.recipes.compare import CompareConfig, Contender
from mora_peft.recipes.train import read_run

METHODS = [Contender(method="mora", method_options={"operator": "rotation"}), Contender(method="lora")]


def test_the_demo_ends_with_a_question_to_the_merged_model(settings, tmp_path, capsys):
    config = CompareConfig(**settings | {"steps": 2}, methods=METHODS)
    demo(config)
    shown = capsys.readouterr().out
    example = read_run(tmp_path / "run" / "mora-rotation-r2-seed0")["examples"][0]
    for text in (example["prompt"], example["expected"], example["before"], "report.html"):
        assert text in shown
    assert (tmp_path / "run" / "merged" / "config.json").is_file()
    demo(config)
    assert capsys.readouterr().out.count("not repeated") == 2


def test_a_missing_base_model_is_named(settings):
    with pytest.raises(UserError, match="make install"):
        demo(CompareConfig(**settings | {"model": "no/such/folder"}))
