"""The stand-ins have the names and arguments of the real thing, where that is installed."""

import inspect
from importlib import import_module
from importlib.util import find_spec

import pytest
from tools_stand_ins import AXOLOTL, SWIFT


def arguments(function) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(("tool", "modules"), [("axolotl", AXOLOTL), ("swift", SWIFT)])
def test_a_stand_in_is_like_the_real_thing(tool, modules):
    if find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed here")
    for module, content in modules.items():
        for name, stand_in in content.items():
            real = getattr(import_module(module), name)
            if inspect.isfunction(stand_in) and stand_in.__module__ == "tools_stand_ins":
                assert arguments(real) == arguments(stand_in), name
            if inspect.isclass(stand_in):
                for method, own in inspect.getmembers(stand_in, inspect.isfunction):
                    if not method.startswith("__"):
                        assert arguments(getattr(real, method)) == arguments(own), f"{name}.{method}"
