"""The whole number that sets a method's size, solved for a budget.

Sizes are counted by PEFT itself, on single layers without storage, so that no method's arithmetic is repeated here.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .budget import TOLERANCE, Budget, Shape
from .config import attach, make_config

if TYPE_CHECKING:
    from peft import PeftConfig

# Fields that say where an adapter goes, not how large it is on a layer.
PLACES = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True)
class Scale:
    """A field of a configuration that is `factor` times the knob's value, and that field's pattern."""

    name: str
    factor: int
    pattern: str | None = None


@dataclass(frozen=True)
class Knob:
    """The field of a PEFT configuration that sets the method's size.

    Args:
        name: Its name.
        pattern: The field that holds other values for single layers, by name, where the configuration has one.
        scale: A field that follows it.
        frozen: Part of the names of the adapter's weights that are not trained, and so do not count.
        most: The largest value that is possible, or sensible, on layers of these shapes.
        fit: The value that a layer with `k` inputs and `d` outputs takes where the knob stands at `value`.
        saw: Whether the size does not only rise, or only fall, with the value.
    """

    name: str = "r"
    pattern: str | None = None
    scale: Scale | None = None
    frozen: str | None = None
    most: Callable[[Iterable[Shape]], int] | None = None
    fit: Callable[[int, int, int], int] = lambda value, k, d: value
    saw: bool = False

    def settings(self, config_class: type["PeftConfig"], budget: Budget, options: dict[str, Any]) -> dict[str, Any]:
        """The fields of `config_class` that bring the method's size to `budget`, unless `options` set it themselves."""
        if self.is_set_by(options):
            values = dict.fromkeys(budget.layers, options.get(self.name, budget.r))
        else:
            values = self.solve(config_class, budget, options)
        # Most layers take the common value. The pattern names the others, without the first part of their names, as
        # C3A looks for something before them.
        [(common, _)] = Counter(values.values()).most_common(1)
        others = {name.split(".", 1)[-1]: value for name, value in values.items() if value != common}
        settings = {self.name: common} | ({self.pattern: others} if others else {})
        if self.scale and self.scale.name not in options:
            settings[self.scale.name] = self.scale.factor * common
            if others:
                settings[self.scale.pattern] = {name: self.scale.factor * value for name, value in others.items()}
        return settings

    def is_set_by(self, options: dict[str, Any]) -> bool:
        """Whether `options` set the size, so that there is nothing to solve."""
        return self.name in options or self.pattern in options

    def solve(self, config_class: type["PeftConfig"], budget: Budget, options: dict[str, Any]) -> dict[str, int]:
        """The value for each layer with which all together come nearest to the budget.

        One value for all where that is near enough; else, where the method has a pattern, two neighbouring values.
        """
        fixed = {name: value for name, value in options.items() if name not in PLACES}
        shapes = Counter(budget.layers.values())

        @cache
        def size(value: int, shape: Shape) -> int:
            return layer_size(config_class, {**fixed, self.name: self.fit(value, *shape)}, shape, self.frozen)

        @cache
        def total(value: int) -> int:
            return sum(count * size(value, shape) for shape, count in shapes.items())

        def miss(value: int) -> float:
            return abs(total(value) / budget.parameters - 1)

        # No layer grows by less than a parameter a step.
        most = max(budget.parameters // len(budget.layers), 1)
        values = range(1, 1 + (min(most, self.most(shapes)) if self.most else most))
        if budget.r in values and miss(budget.r) <= TOLERANCE:
            chosen = dict.fromkeys(budget.layers, budget.r)
        else:
            sign = 1 if total(values[-1]) >= total(values[0]) else -1
            place = bisect_left(values, sign * budget.parameters, key=lambda value: sign * total(value))
            low, high = values[max(place - 1, 0)], values[min(place, len(values) - 1)]
            best = min((low, high), key=miss)
            if self.saw and miss(best) > TOLERANCE:
                # The teeth are wide: where one misses the target, the slope of another one near by meets it.
                near = range(max(best // 2, 1), min(2 * best, values[-1]) + 1, max(best // 25, 1))
                best = min((best, *near), key=miss)
            if self.pattern and miss(best) > TOLERANCE:
                chosen = _spread(budget, low, high, size)
            else:
                chosen = dict.fromkeys(budget.layers, best)
        return {name: self.fit(value, *budget.layers[name]) for name, value in chosen.items()}


def _spread(budget: Budget, low: int, high: int, size: Callable[[int, Shape], int]) -> dict[str, int]:
    """`low` or `high` for each layer, spread so that the running sum of sizes keeps to its share of the budget."""
    lows, highs = (sum(size(value, shape) for shape in budget.layers.values()) for value in (low, high))
    share = min(max((budget.parameters - lows) / (highs - lows), 0), 1) if lows != highs else 0
    values, ideal, reached = {}, 0.0, 0
    for name, shape in budget.layers.items():
        sizes = {value: size(value, shape) for value in (low, high)}
        ideal += sizes[low] + share * (sizes[high] - sizes[low])
        values[name] = min(sizes, key=lambda value: abs(reached + sizes[value] - ideal))
        reached += sizes[values[name]]
    return values


def layer_size(config_class: type["PeftConfig"], settings: dict[str, Any], shape: Shape, frozen: str | None) -> int:
    """The parameters that PEFT would train on one linear layer of this shape."""
    import torch

    config = make_config(config_class, {**settings, "target_modules": ["0"]})
    with torch.device("meta"):
        tuned = attach(torch.nn.Sequential(torch.nn.Linear(*shape, bias=False)), config)
    return sum(
        parameter.numel()
        for name, parameter in tuned.named_parameters()
        if parameter.requires_grad and not (frozen and frozen in name)
    )
