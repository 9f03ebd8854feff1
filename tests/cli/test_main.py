"""The command: quick help, near misses named, one sentence for bad input, and configs that parse."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from mora_peft.cli import _parser, main
from mora_peft.errors import UserError
from mora_peft.recipes.compare import CompareConfig
from mora_peft.recipes.evaluate import EvaluateConfig
from mora_peft.recipes.teach.settings import TeachConfig
from mora_peft.recipes.train import TrainConfig

ROOT = Path(__file__).parents[2]
CONFIG_CLASSES = {
    "train": TrainConfig,
    "compare": CompareConfig,
    "demo": CompareConfig,
    "evaluate": EvaluateConfig,
    "teach": TeachConfig,
}
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_the_overview_lists_every_command(capsys):
    assert main.main([]) == main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and phrase in shown for name, phrase in main.COMMANDS.items())


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_a_module_and_help(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"mora {name}" in capsys.readouterr().out


@pytest.mark.parametrize("config_class", sorted(set(CONFIG_CLASSES.values()), key=lambda c: c.__name__))
def test_help_explains_every_option(config_class):
    """What the docstring says of a field is what the help says of its option."""
    shown = " ".join(_parser.build_parser("x", config_class).format_help().split())
    for field in fields(config_class):
        documented = [part for base in config_class.__mro__ for part in re.findall(
            rf"^    {field.name}: (.*)$", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)]  # fmt: skip
        assert documented, field.name
        assert " ".join(documented[0].split()[:4]) in shown, field.name


@pytest.mark.parametrize("word, near", [("trian", "train"), ("compair", "compare"), ("inspekt", "inspect")])
def test_an_unknown_command_names_the_nearest(word, near, capsys):
    assert main.main([word]) == _parser.BAD_INPUT
    assert f"did you mean {near}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--output", "x"], ["model"]),
        (["--output", "x", "--model", "m", "--data", "d", "--step", "3"], ["--step", "did you mean --steps?"]),
        (["--output", "x", "--model", "m", "--data", "d", "--steps", "many"], ["steps", "many"]),
        (["--output", "x", "--model", "m", "--data", "d", "--dtype", "int8"], ["dtype", "int8"]),
        (["--output", "x", "--model", "m"], ["nothing to learn"]),
        (["--config", "gone.yaml"], ["gone.yaml"]),
    ],
)
def test_bad_options_get_one_sentence(arguments, words, capsys):
    assert main.main(["train", *arguments]) == _parser.BAD_INPUT
    [sentence] = capsys.readouterr().err.strip().splitlines()
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    "error, code",
    [
        (None, 0),
        (UserError("Wrong."), 2),
        (FileNotFoundError("Gone."), 2),
        (OSError(28, "No space left on device"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error, code, capsys):
    def recipe(config):
        if error is not None:
            raise error

    assert _parser.run_command("evaluate", EvaluateConfig, recipe, ["m", "--data", "d"], positional=True) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == (0 if error is None else 1)


def test_a_bug_keeps_its_traceback():
    def recipe(config):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        _parser.run_command("evaluate", EvaluateConfig, recipe, ["m", "--data", "d"], positional=True)


def test_a_bare_switch_is_on():
    words = ["--output", "x", "--model", "m", "--data", "d"]
    assert _parser.parse("train", TrainConfig, [*words, "--fresh"]).fresh
    assert _parser.parse("train", TrainConfig, ["--fresh", *words]).fresh
    assert not _parser.parse("train", TrainConfig, [*words, "--fresh", "false"]).fresh
    assert not _parser.parse("train", TrainConfig, words).fresh


def test_options_may_be_spelled_with_hyphens():
    words = ["--output", "x-y", "--model=m-n", "--data", "d", "--batch-size", "3", "--learning-rate=0.1"]
    config = _parser.parse("train", TrainConfig, words)
    assert (config.output, config.model, config.batch_size, config.learning_rate) == ("x-y", "m-n", 3, 0.1)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_config_parses_under_the_command_in_its_first_line(file):
    first = file.read_text().splitlines()[0]
    words = first.removeprefix("#").split()
    assert words[0] == "mora" and words[1] in CONFIG_CLASSES, first
    assert words[1] == "demo" or words[2:4] == ["--config", f"configs/{file.name}"], first
    config = _parser.parse(words[1], CONFIG_CLASSES[words[1]], ["--config", str(file)])
    assert isinstance(config, CONFIG_CLASSES[words[1]])
