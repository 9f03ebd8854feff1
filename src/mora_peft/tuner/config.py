"""MoraConfig: what a MoRA adapter is, as stored in `adapter_config.json`."""

from dataclasses import dataclass, field

from peft.config import PeftConfig
from peft.utils.other import get_pattern_key

from mora_peft.operators import MORA_TYPES, check_operator

from .registration import PeftType

DEFAULT_OPERATOR = "rotation"


@dataclass
class MoraConfig(PeftConfig):
    """Configuration of a [`MoraModel`] (MoRA: Jiang et al. 2024, arXiv 2405.12130).

    Args:
        r: The LoRA-equivalent budget: each layer gets one square M of side r̂ = round(sqrt((k + d) · r)), as many
            parameters as a LoRA of rank r. r̂ itself is never given.
        operator: `"rotation"` (default), `"sharing"`, `"decoupling"` or `"truncation"`, or the authors' number.
        layout: How sharing groups inputs and outputs: `"strided-tiled"` (its default), `"grouped-grouped"`,
            `"grouped-tiled"` or `"strided-grouped"`.
        fold: For rotation and decoupling: where the output is shorter than the cut-up input, add the rows that would
            be dropped into the ones that stay, so that every input feature has weight.
        mora_type: The authors' number instead of an operator's name: 1 to 4 for sharing in the layouts' order above,
            6 for rotation. Stored by name.
        cap_r_hat: Keep r̂ at or under min(k, d). False only for checkpoints that were trained without the cap.
        mora_dropout: Dropout probability on the adapter's input while training.
        scaling: A factor on ΔW.
        target_modules: Names of the layers to adapt, a regular expression, or `"all-linear"`; None takes PEFT's
            default for the architecture.
        target_parameters: Names of parameters to adapt that no linear layer owns, such as `"experts.gate_up_proj"`;
            each expert gets an M of its own.
        exclude_modules: Names, or a regular expression, of layers to leave out.
        layers_to_transform: Indices of the layers to adapt.
        layers_pattern: Name of the layer list that the indices count, where PEFT does not know it.
        rank_pattern: r by layer name or regular expression, where it differs from `r`.
        bias: Which biases are trained: `"none"`, `"all"` or `"mora_only"`.
        modules_to_save: Further modules that are trained whole and saved with the adapter.
        ensure_weight_tying: Where the output layer shares the embedding's weight and either is adapted, give both one
            M, as they have one weight; merging then keeps them one. False: each has its own M.
        init_weights: True: M = 0, so that ΔW = 0 at the start. False: random (for tests).

    Raises:
        ValueError: A value outside its range; the message names it and what was expected.
    """

    r: int = field(default=8, metadata={"help": "The rank of a LoRA with the same number of parameters."})
    operator: str | int = field(default=DEFAULT_OPERATOR, metadata={"help": "Operator by name or authors' number."})
    layout: str | None = field(default=None, metadata={"help": "Layout of the operator 'sharing'."})
    fold: bool = field(default=False, metadata={"help": "Fold rows that truncation would drop."})
    mora_type: int | None = field(default=None, metadata={"help": "The authors' number of an operator."})
    cap_r_hat: bool = field(default=True, metadata={"help": "Keep the side of M at or under min(k, d)."})
    mora_dropout: float = field(default=0.0, metadata={"help": "Dropout probability on the adapter's input."})
    scaling: float = field(default=1.0, metadata={"help": "A factor on the weight difference."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to leave out."})
    target_parameters: list[str] | None = field(default=None, metadata={"help": "Parameters to adapt, by name."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Layer indices to adapt."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the list of layers."})
    rank_pattern: dict | None = field(default_factory=dict, metadata={"help": "r by layer name where it differs."})
    bias: str = field(default="none", metadata={"help": "Biases to train: 'none', 'all' or 'mora_only'."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules trained whole and saved."})
    ensure_weight_tying: bool = field(default=False, metadata={"help": "One M for layers that share a weight."})
    init_weights: bool = field(default=True, metadata={"help": "True: start at a zero weight difference."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.MORA
        if self.ensure_weight_tying:  # what PEFT finds tied is kept here, as for LoRA
            self.modules_to_tie = self.target_modules_to_tie = None
        if isinstance(self.target_parameters, str):
            raise TypeError(f"`target_parameters` must be a list of names, but is {self.target_parameters!r}.")
        self._resolve_operator()
        self.rank_pattern = dict(self.rank_pattern or {})
        _check_rank("r", self.r)
        for name, r in self.rank_pattern.items():
            _check_rank(f"rank_pattern[{name!r}]", r)
        if not 0.0 <= self.mora_dropout <= 1.0:
            raise ValueError(f"`mora_dropout` is a probability from 0 to 1, but is {self.mora_dropout}.")
        if self.bias not in ("none", "all", "mora_only"):
            raise ValueError(f"`bias` must be 'none', 'all' or 'mora_only', but is {self.bias!r}.")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(value := getattr(self, name), list):
                setattr(self, name, set(value))
        if isinstance(self.target_modules, str):
            for name in ("layers_to_transform", "layers_pattern"):
                if getattr(self, name) is not None:
                    raise ValueError(f"`{name}` cannot be used when `target_modules` is a str.")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("When `layers_pattern` is specified, `layers_to_transform` must also be specified.")

    def r_for(self, layer: str) -> int:
        """r of a layer, by its full name: that of the first key of `rank_pattern` that matches the name's end."""
        return self.rank_pattern.get(get_pattern_key(self.rank_pattern, layer), self.r)

    def _resolve_operator(self) -> None:
        """Turn the authors' number, given as `mora_type` or `operator`, into a name and a layout."""
        number = self.mora_type
        if isinstance(self.operator, int):
            if number not in (None, self.operator):
                raise ValueError(f"`operator` says {self.operator}, but `mora_type` says {number}: give one of them.")
            number = self.operator
        if number is not None:
            if number not in MORA_TYPES:
                known = ", ".join(map(str, MORA_TYPES))
                raise ValueError(f"Unknown `mora_type` {number!r}: expected one of {known}, or an operator by name.")
            name, layout = MORA_TYPES[number]
            if self.operator not in (number, name, DEFAULT_OPERATOR) or self.layout not in (None, layout):
                raise ValueError(
                    f"`mora_type={number}` is the operator {name!r}"
                    + (f" with layout {layout!r}" if layout else "")
                    + f", but operator={self.operator!r} and layout={self.layout!r} are given too: give one of them."
                )
            self.operator, self.layout, self.mora_type = name, layout, None
        check_operator(self.operator, self.layout, self.fold)
        if self.operator == "sharing" and self.layout is None:
            self.layout = "strided-tiled"


def _check_rank(name: str, r: int) -> None:
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise ValueError(f"`{name}` should be a positive integer value (the rank of an equally large LoRA), got {r!r}.")
