"""The stand-ins have the names and arguments of the real thing: read from the source that its wheel carries."""

import ast
import builtins
import inspect
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tools_stand_ins import AXOLOTL, SWIFT

from mora_peft.integrations import mora_config

WHEELS = {"axolotl": "axolotl==0.19.0", "swift": "ms-swift==4.6.0", "llamafactory": "llamafactory==0.9.5"}


class Source:
    """The modules of a wheel, as syntax: nothing of it is imported."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = zipfile.ZipFile(wheel)
        self.files = set(self.wheel.namelist())

    def tree(self, module: str) -> ast.Module:
        path = module.replace(".", "/")
        file = next(file for file in (f"{path}.py", f"{path}/__init__.py") if file in self.files)
        return ast.parse(self.wheel.read(file))

    def find(self, module: str, name: str) -> tuple[str, ast.AST]:
        """The statement that defines `name` in `module` or where that imports it from, and the module it stands in."""
        for node in ast.walk(self.tree(module)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                return module, node
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return module, node
            if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
                return self.find(self.absolute(module, node), name)
        raise AssertionError(f"{module} has no {name}")

    def methods(self, module: str, node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
        """The methods of a class by name, with those that it inherits."""
        found = {}
        for base in filter(None, map(_name, node.bases)):
            if base not in dir(builtins) and base != "ABC":
                found |= self.methods(*self.find(module, base))
        return found | {method.name: method for method in node.body if isinstance(method, ast.FunctionDef)}

    def absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module
        package = module.split(".")
        if f"{module.replace('.', '/')}/__init__.py" not in self.files:
            package.pop()
        return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


@pytest.fixture(scope="module")
def source(request, tmp_path_factory) -> Source:
    """The source of a tool, from the package index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip = subprocess.run([*command, "--dest", str(folder), WHEELS[request.param]], capture_output=True, text=True)
    if pip.returncode:
        pytest.skip(f"{WHEELS[request.param]} cannot be had here: {pip.stderr.strip().splitlines()[-1:]}")
    return Source(next(folder.glob("*.whl")))


def arguments(node: ast.FunctionDef) -> list[str]:
    every = node.args
    found = [*every.posonlyargs, *every.args, every.vararg, *every.kwonlyargs, every.kwarg]
    return [argument.arg for argument in found if argument]


def own(function) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("source", "modules"), [("axolotl", AXOLOTL), ("swift", SWIFT)], indirect=["source"], ids=["axolotl", "swift"]
)
def test_a_stand_in_is_like_the_real_thing(source, modules):
    for module, content in modules.items():
        for name, stand_in in content.items():
            place, real = source.find(module, name)
            if inspect.isfunction(stand_in) and stand_in.__module__ == "tools_stand_ins":
                assert arguments(real) == own(stand_in), name
            if inspect.isclass(stand_in):
                methods = source.methods(place, real)
                for method, function in inspect.getmembers(stand_in, inspect.isfunction):
                    if not method.startswith("__"):
                        assert arguments(methods[method]) == own(function), f"{name}.{method}"


@pytest.mark.parametrize("source", ["llamafactory"], indirect=True)
def test_llama_factory_makes_its_adapter_in_one_module_and_of_what_we_take(source):
    """So that one line after the imports of that module is enough."""
    files = [file for file in source.files if file.endswith(".py") and "/v1/" not in file]  # a rewrite, off by default
    users = [file for file in files if b"LoraConfig(" in source.wheel.read(file)]
    assert users == ["llamafactory/model/adapter.py"]
    tree = source.tree("llamafactory.model.adapter")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) == "LoraConfig"]
    keywords = {keyword.arg for call in calls for keyword in call.keywords if keyword.arg}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and _name(node.targets[0]) == "peft_kwargs"
            and isinstance(node.value, ast.Dict)
        ):
            names = {key.value for key in node.value.keys}
            keywords |= names if "r" in names and "lora_dropout" in names else set()
    assert "lora_alpha" in keywords
    values = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    config = mora_config(**dict.fromkeys(keywords) | {name: values[name] for name in keywords & values.keys()})
    assert (config.r, config.target_modules) == (4, {"q_proj"})


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else None
