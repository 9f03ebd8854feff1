"""A pytest plugin that turns PEFT's own tests for MiSS into tests for MoRA, editing none of PEFT's files.

MiSS is MoRA's nearest twin in PEFT: one matrix a layer, linear, mergeable. Every parametrised row that names
`MissConfig` is translated into a MoRA row, and so are LoRA's rows for embeddings, convolutions and experts, which MiSS
does not adapt. The other rows are dropped, and tests that are left without a `MoraConfig` are deselected. The
outcomes are counted in the JSON file that `--mora-report` names.
"""

import dataclasses
import functools
import gc
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from peft import LoraConfig, MissConfig

from mora_peft import MoraConfig

# MiSS's two variants have no counterpart: their rows exercise operators other than MoRA's default instead.
OPERATORS_FOR_VARIANTS = {
    "bat": {"operator": "sharing"},
    "mini": {"operator": "decoupling", "fold": True},
}

# LoRA's rows for layers that MiSS has none for: the labels of PEFT's table of custom models. Rows that give
# `target_parameters` come with them.
LORA_ROWS = {
    "Embedding + transformers Conv1D 2 LoRA",
    "Embedding + transformers Conv1D 3 LoRA",
    "Conv1d LoRA",
    "Conv2d 1 LoRA",
    "Conv2d 2 LoRA",
    "Conv2d Groups LoRA",
    "Conv2d Groups2 LoRA",
    "Conv3d 1 LoRA",
    "Conv3d 2 LoRA",
}
# LoRA's keyword arguments in MoraConfig's words; None: it has no such argument.
LORA_ARGUMENTS = {"lora_dropout": "mora_dropout", "lora_alpha": None, "init_lora_weights": "init_weights"}

# MoRA rows that are not run: part of the test's id -> why. An entry that matches nothing is an error.
DESELECTED = {
    "test_from_pretrained_cache_dir[": "downloads into an empty cache, so it needs the hub itself",
    "mixed_adapter_batches[trl-internal-testing/tiny-Llama4": "refused, as for LoRA, but not in LoRA's words",
    "mixed_adapter_batches[trl-internal-testing/tiny-GptOss": "refused, as for LoRA, but not in LoRA's words",
    "[LoRA targeting nn.Parameter Different": "refused, as for LoRA, for which PEFT skips it",
    "test_only_params_are_updated[Conv3d 2 LoRA": "rotation sees two of the layer's ten inputs, and a ReLU made them 0",
}

# PEFT's functions that skip a test for every method they do not list: name -> why MoRA must not be skipped.
LIFTED_GUARDS = {
    "_skip_if_conv1d_not_supported": "MoRA supports Conv1D",
    "check_beft_config": "meant for BEFT alone, but skips merging on Llama and Gemma for every method",
}

# Tests that compare the method with LoraConfig before they run, though MoRA has the feature.
LORA_ONLY = ("test_mixed_adapter_batches", "test_generate_with_mixed_adapter_batches")

# PEFT's own skips that a MoRA row may meet: how the reason begins -> why it is right. Others fail the suite.
EXPECTED_SKIPS = {
    "This test does not apply to": "prompt tuning only",
    "This test is only for prompt learning methods": "prompt learning only",
    "Skip tests that are not prompt learning": "prompt learning only",
    "Test not applicable for": "prompt learning, or LoRA's and IA3's ways to combine adapters of unequal ranks",
    "Testing bias warnings only for": "skips every method; test_peft_extras_life_cycle.py has MoRA's own",
    "Merging with target_parameters is not supported for all PEFT methods": "skips every method; test_kinds.py merges",
    "Skipping FSDP + target_paramters": "skips every method",
    "Multiple active adapters with modules_to_save": "PEFT supports it for no method",
    "Bnb 4 bit quant with CPU": "merging into 4 bits is too coarse on a CPU for every method",
    "got empty parameter set": "neither bitsandbytes nor torchao is installed",
}

ParameterSet = type(pytest.param())


# --- From a MiSS row to a MoRA row ------------------------------------------------------------------------------------


def mentions(value, config_class) -> bool:
    """Whether a parameter is `config_class`, an instance of it, or holds one, at any depth."""
    if isinstance(value, dict):
        return any(mentions(part, config_class) for part in value.values())
    if isinstance(value, (list, tuple)):  # ParameterSet is a tuple too
        return any(mentions(part, config_class) for part in value)
    if isinstance(value, functools.partial):
        return mentions(value.func, config_class)
    return value is config_class or isinstance(value, config_class)


def is_further(row) -> bool:
    """Whether `row` is a plain LoRA's, for a kind of layer that MiSS does not adapt."""
    if not isinstance(row, (list, tuple)) or LoraConfig not in row:
        return False
    arguments = [part for part in row if isinstance(part, dict)]
    return row[0] in LORA_ROWS or any("target_parameters" in part for part in arguments)


def translate_further(row):
    return type(row)(
        MoraConfig if part is LoraConfig else _without_lora(part) if isinstance(part, dict) else part for part in row
    )


def _without_lora(arguments: dict) -> dict:
    named = {LORA_ARGUMENTS.get(name, name): value for name, value in arguments.items()}
    return {name: value for name, value in named.items() if name is not None}


def translate(value):
    """A copy of `value` with MoRA in MiSS's place: class, instance, keyword arguments, method name, label."""
    if value is MissConfig:
        return MoraConfig
    if isinstance(value, MissConfig):
        return MoraConfig(**_mora_arguments(_arguments(value)))
    if isinstance(value, functools.partial):
        return functools.partial(translate(value.func), *value.args, **_mora_arguments(value.keywords))
    if isinstance(value, ParameterSet):
        return value._replace(values=translate(value.values), id=translate(value.id))
    if isinstance(value, (list, tuple)):
        return type(value)(map(translate, value))
    if isinstance(value, dict):
        return _mora_arguments({name: translate(part) for name, part in value.items()})
    if isinstance(value, str):
        return re.sub(r"\bmiss\b", "mora", value, flags=re.IGNORECASE)
    return value


def _arguments(config: MissConfig) -> dict:
    """The arguments that give `config`: the fields that differ from those of a plain one."""
    plain = MissConfig()
    names = (field.name for field in dataclasses.fields(config) if field.init)
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(plain, name)}


def _mora_arguments(arguments: dict) -> dict:
    """MissConfig's keyword arguments in MoraConfig's words."""
    arguments = {{"miss_dropout": "mora_dropout"}.get(name, name): value for name, value in arguments.items()}
    arguments.pop("mini_r", None)
    if isinstance(arguments.get("init_weights"), str):
        arguments |= OPERATORS_FOR_VARIANTS[arguments.pop("init_weights")]
    return arguments


def mora_rows(rows: list, ids=None) -> tuple[list, object]:
    """Keep and translate the rows for MoRA, with their explicit ids; leave tables without any alone."""
    chosen = [index for index, row in enumerate(rows) if mentions(row, MissConfig) or is_further(row)]
    if not chosen:
        return rows, ids
    if ids is not None and not callable(ids):
        ids = list(ids)
        ids = [translate(ids[index]) for index in chosen]
    kept = [rows[index] for index in chosen]
    return [translate_further(row) if is_further(row) else translate(row) for row in kept], ids


# --- Hooks ------------------------------------------------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption("--mora-report", type=Path, required=True, help="where to write the counts, as JSON")


def pytest_configure(config):
    config.pluginmanager.register(Report(config.getoption("mora_report")))


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    parametrize = metafunc.parametrize

    def parametrize_mora(argnames, argvalues, *, ids=None, **kwargs):
        rows, ids = mora_rows(list(argvalues), ids)
        parametrize(argnames, rows, ids=ids, **kwargs)

    metafunc.parametrize = parametrize_mora


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    ours = [item for item in items if hasattr(item, "callspec") and mentions(item.callspec.params, MoraConfig)]
    empty = {item.path.name for item in items} - {item.path.name for item in ours}
    if empty or not ours:
        raise pytest.UsageError(f"no test for MoRA was found in {', '.join(sorted(empty)) or 'the files given'}")
    unused = [part for part in DESELECTED if not any(part in item.nodeid for item in ours)]
    if unused:
        raise pytest.UsageError(f"DESELECTED names tests that do not exist: {unused}")

    kept = [item for item in ours if not any(part in item.nodeid for part in DESELECTED)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
    _lift_guards(_peft_test_modules(items))


def pytest_collection_finish(session):
    # PEFT's tests collect garbage again and again: what the imports have made needs no look each time.
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    gc.unfreeze()


def _peft_test_modules(items) -> list:
    """PEFT's test modules and the helpers beside them, as imported."""
    package = items[0].module.__name__.rpartition(".")[0]
    return [module for name, module in sys.modules.items() if name.startswith(package + ".")]


def _lift_guards(modules) -> None:
    for module in modules:
        for guard in LIFTED_GUARDS:
            if hasattr(module, guard):
                setattr(module, guard, lambda *args: None)
        if hasattr(module, "_HUB_MODEL_ACCESSES"):
            module._HUB_MODEL_ACCESSES = EveryModelIsCached()


class EveryModelIsCached(dict):
    """PEFT goes online for a model it meets the first time, whatever HF_HUB_OFFLINE says; here it has met them all."""

    def __contains__(self, model_id):
        return True

    def __missing__(self, model_id):
        return 0


@pytest.fixture(autouse=True)
def mora_where_only_lora_is_let_through(request, monkeypatch):
    if request.node.originalname in LORA_ONLY:
        for module in _peft_test_modules([request.node]):
            if hasattr(module, "PeftCommonTester"):  # not the helpers, which set LoRA's own arguments
                monkeypatch.setattr(module, "LoraConfig", MoraConfig)


class Report:
    """Counts outcomes by file, and writes them, with skip reasons and failures, when the session ends."""

    def __init__(self, path: Path):
        self.path = path
        self.outcomes = {}
        self.skips = Counter()
        self.failures = {}

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.passed:
            return  # set-up and tear-down count only when something happens there
        self.outcomes.setdefault(Path(report.fspath).name, Counter())[report.outcome] += 1
        if report.skipped:
            self.skips[report.longrepr[2].removeprefix("Skipped: ")] += 1
        if report.failed:
            self.failures[report.nodeid] = report.longreprtext

    def pytest_sessionfinish(self):
        counts = {"outcomes": self.outcomes, "skips": self.skips, "failures": self.failures}
        self.path.write_text(json.dumps(counts, indent=2))
