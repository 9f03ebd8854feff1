"""Tasks: rows to learn and a metric, one module each.

A task's module has three names:
    Options                      a dataclass, its fields being the keys of `task_options`
    rows(options, data)          the rows to learn, as a data set; `data` replaces the rows that the task would make
    measure(model, tokenizer, rows, batch_size)     (metrics by name, the model's answer to each row)
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from mora_peft.errors import UserError


def task_named(name: str) -> ModuleType:
    """The module of the task `name`; UserError lists the tasks there are otherwise."""
    known = [module.name for module in iter_modules(__path__)]
    if name not in known:
        raise UserError(f"There is no task {name!r}: expected one of {', '.join(known)}.")
    return import_module(f"{__name__}.{name}")


def task_options(name: str, given: dict[str, Any]) -> Any:
    """`given` as the Options of the task `name`; UserError names what it does not take."""
    try:
        return task_named(name).Options(**given)
    except TypeError as error:
        raise UserError(f"The task {name} does not take these options: {error}.") from error
