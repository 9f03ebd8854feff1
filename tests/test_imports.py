"""Imports point one way, and importing the package stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "mora_peft"
#: What each room may import of the package, from the bottom up.
MAY_IMPORT = {
    "operators": {"operators"},
    "tuner": {"tuner", "operators", "errors"},
    "serving": {"serving", "tuner", "operators", "errors"},
    "integrations": {"integrations", "tuner", "errors"},
    "recipes": {"recipes", "serving", "tuner", "operators", "errors"},
    "cli": {"cli", "recipes", "errors"},
    "errors": set(),
    "__init__": {"tuner"},
}


def imports(file: Path) -> set[str]:
    """The modules that a file imports anywhere in it, in full: `mora_peft.operators.rank`, `torch`."""
    package = ("mora_peft", *file.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            source = ".".join(base + ([node.module] if node.module else []))
            # `from . import rank` and `from mora_peft import recipes` name modules too.
            named = node.module is None or source == "mora_peft"
            found |= {f"{source}.{alias.name}" for alias in node.names} if named else {source}
    return found


def room_of(module: str) -> str:
    """The first part of a module's name below the package; what `__init__` exports belongs to the tuner."""
    name = module.split(".")[1] if "." in module else "__init__"
    return {"MoraConfig": "tuner", "MoraModel": "tuner", "__init__": "tuner", "__version__": "errors"}.get(name, name)


def files(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def test_every_file_is_in_a_room():
    known = {file for room in MAY_IMPORT for file in files(room)}
    assert known >= set(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_point_one_way(room):
    own = {(file.name, module) for file in files(room) for module in imports(file) if module.startswith("mora_peft")}
    upwards = {(file, module) for file, module in own if room_of(module) not in MAY_IMPORT[room]}
    assert not upwards


def test_operators_need_torch_only():
    """The GPU kernel is written in Triton, in a file of its own that nothing imports without it."""
    sources = [file for file in files("operators") if file.name != "triton.py"]
    outside = {module.split(".")[0] for file in sources for module in imports(file)} - {"mora_peft"}
    assert "torch" in outside
    assert outside - {"torch"} <= sys.stdlib_module_names


def test_only_registration_touches_the_register_of_peft():
    internals = {"peft.mapping", "peft.utils.peft_types"}
    assert {file.name for file in files("tuner") if imports(file) & internals} == {"registration.py"}


def test_importing_the_package_imports_nothing_of_the_command():
    program = "import sys, mora_peft; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "mora_peft.tuner.layer" in modules
    heavy = ("mora_peft.recipes", "mora_peft.cli", "trl", "datasets", "jsonargparse", "plotly")
    assert not [module for module in modules if module in heavy or module.startswith(tuple(f"{m}." for m in heavy))]
