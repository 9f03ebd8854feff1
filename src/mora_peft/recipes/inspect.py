"""What an adapter is made of, layer kind by layer kind, and what its ΔW looks like; a plan for a base model."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mora_peft.errors import UserError

from .adapters import Adapter, check_keys, is_adapter, read_adapter, skeleton
from .spectrum import Spectrum, factored_values, mora_values, summarize

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor


@dataclass
class InspectConfig:
    """List the layers of an adapter, or of the adapter that a base model would get: sizes, budget, singular values.

    Args:
        source: An adapter's folder, a model's folder, or a hub id. No weights of a base model are read.
        r: Budget of the planned adapter, for a base model.
        operator: Operator of the planned adapter.
        layout: How sharing groups inputs and outputs.
        fold: Fold the rows that rotation or decoupling would drop.
        target_modules: Layers of the planned adapter: all-linear, a list of names, or a regular expression.
        base: Base model, where the adapter does not name it.
        plan: Say what memory a training step of the planned adapter needs, before anything is loaded.
        batch_size: Rows a step on one device, for the plan.
        max_length: Tokens a row, for the plan; without it 2048, or as many as the model has positions.
        dtype: Of the base, for the plan.
        quantization: How the base's linear layers are stored, for the plan: none, nf4 (4 bits) or int8; without it as
            the model's configuration says.
        gradient_checkpointing: Recompute activations in the backward pass, for the plan.
        json: Print JSON, with every layer by itself.
    """

    source: str
    r: int = 8
    operator: Literal["rotation", "sharing", "decoupling", "truncation"] = "rotation"
    layout: str | None = None
    fold: bool = False
    target_modules: str | list[str] = "all-linear"
    base: str | None = None
    plan: bool = False
    batch_size: int = 1
    max_length: int | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantization: Literal["none", "nf4", "int8"] | None = None
    gradient_checkpointing: bool = False
    json: bool = False

    def __post_init__(self):
        for name in ("batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")


@dataclass(frozen=True)
class Layer:
    """One adapted layer with `k` inputs and `d` outputs.

    `side` is r_hat for MoRA and the rank for LoRA; `budget` the parameters of a LoRA of rank r, and `cap_cost` how many
    of them the cap r_hat ≤ min(k, d) leaves unused.
    """

    name: str
    k: int
    d: int
    side: int
    parameters: int
    bytes: int
    budget: int
    cap_cost: int
    spectrum: Spectrum | None


def inspect(config: InspectConfig) -> list[Layer]:
    """Print a table of layer kinds, or JSON, and return the layers.

    Raises UserError for a damaged or unfitting adapter, another method than MoRA and LoRA, or targets without a match.
    """
    from .libraries import quiet_libraries

    quiet_libraries()
    adapter = read_adapter(config.source) if is_adapter(config.source) else None
    base = adapter.base(config.base) if adapter else config.source
    model = _without_weights(base, adapter.config if adapter else _plan(config), config.source)
    config = _completed(config, model)
    layers = list(_layers(model, adapter))
    title = f"{config.source}: {_title(model.peft_config['default'])}" + ("" if adapter else " (planned)")
    memory = _memory(model, config) if config.plan else {}
    if config.json:
        found = {"title": title, "totals": _totals(layers), "layers": [asdict(layer) for layer in layers]}
        print(json.dumps(found | ({"memory": memory} if memory else {})))
    else:
        _print_table(title, layers)
        _print_memory(memory, config)
    return layers


def _memory(model: "PeftModel", config: InspectConfig) -> dict[str, int]:
    """Bytes of a training step by what they are for, and their sum."""
    import torch

    from .memory import memory_of_step

    for parameter in model.parameters():
        if not parameter.requires_grad:  # the adapter is trained in float32
            parameter.data = parameter.data.to(getattr(torch, config.dtype))
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    memory = memory_of_step(model, config.batch_size, config.max_length, config.quantization)
    return asdict(memory) | {"total": memory.total}


def _completed(config: InspectConfig, model: "PeftModel") -> InspectConfig:
    """`config` with what it leaves to the model's configuration: how it is stored, and its positions."""
    positions = getattr(model.config, "max_position_embeddings", None) or 10**9
    length = config.max_length or min(2048, positions)
    if config.plan and length > positions:
        raise UserError(f"max_length is {length}, but {config.source} has {positions} positions: give no more.")
    stored = getattr(model.config, "quantization_config", None) or {}
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    kind = "nf4" if stored.get("load_in_4bit") else "int8" if stored.get("load_in_8bit") else "none"
    return replace(config, max_length=length, quantization=config.quantization or kind)


def _print_memory(memory: dict[str, int], config: InspectConfig) -> None:
    if not memory:
        return
    kind = config.dtype if config.quantization == "none" else f"{config.quantization}, computed in {config.dtype}"
    checkpoints = ", activations recomputed" if config.gradient_checkpointing else ""
    print(f"Memory of a step on {config.batch_size} x {config.max_length} tokens ({kind}{checkpoints}), GiB:")
    for name, size in memory.items():
        print(f"  {name:<12}{size / 2**30:9.3f}")


def _plan(config: InspectConfig) -> "PeftConfig":
    from mora_peft import MoraConfig

    try:
        return MoraConfig(
            r=config.r,
            operator=config.operator,
            layout=config.layout,
            fold=config.fold,
            target_modules=config.target_modules,
            task_type="CAUSAL_LM",
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _without_weights(base: str, peft_config: "PeftConfig", source: str) -> "PeftModel":
    """The base model with the adapter's layers in it, on the meta device."""
    import torch
    from peft import get_peft_model

    import mora_peft  # noqa: F401  (registers MoRA with PEFT)

    if peft_config.peft_type not in ("MORA", "LORA"):
        raise UserError(f"{source} is a {peft_config.peft_type.value} adapter: `mora inspect` reads MoRA and LoRA.")
    peft_config.inference_mode = False
    try:
        with torch.device("meta"):
            return get_peft_model(skeleton(base), peft_config)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"{source} does not fit {base}: {error}") from error


def _layers(model: "PeftModel", adapter: Adapter | None) -> Iterator[Layer]:
    """The adapted layers of `model`; `adapter` brings the tensors, checked against them."""
    from peft import get_peft_model_state_dict

    from mora_peft.operators import lora_parameters, needs_even_side, r_hat_for
    from mora_peft.tuner import MoraLayer

    config = model.peft_config["default"]
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    found: dict[str, Tensor] = adapter.tensors if adapter else expected
    if adapter:
        check_keys(adapter, set(expected))
    own = "mora_M" if config.peft_type == "MORA" else "lora_A"
    for name, module in model.base_model.model.named_modules():
        if "default" not in getattr(module, own, {}):
            continue
        start = f"base_model.model.{name}."
        tensors = {key: found[key] for key in expected if key.startswith(start + own[:5])}
        for key, tensor in tensors.items():
            if tensor.shape != expected[key].shape:
                raise UserError(
                    f"The adapter {adapter.folder} does not fit its base: {key} has the shape {list(tensor.shape)} "
                    f"where the base needs {list(expected[key].shape)}."
                )
        k, d, r = module.in_features, module.out_features, module.r["default"]
        spectrum, cost, side, matrices = None, 0, r, 1
        if isinstance(module, MoraLayer):
            operator, side = module.operator["default"], module.r_hat["default"]
            uncapped = r_hat_for(k, d, r, even=needs_even_side(config.operator), cap=False)
            matrices = expected[start + "mora_M"].numel() // side**2  # one, or one an expert
            cost = matrices * (uncapped**2 - side**2)
            if adapter and matrices == 1:
                spectrum = summarize(mora_values(operator, found[start + "mora_M"]) * config.scaling)
        elif adapter and start + "lora_B.weight" in found:
            A, B = found[start + "lora_A.weight"], found[start + "lora_B.weight"]
            if A.ndim == 2:
                spectrum = summarize(factored_values(B, A) * module.scaling["default"])
        parameters = sum(tensor.numel() for tensor in tensors.values())
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        yield Layer(name, k, d, side, parameters, size, matrices * lora_parameters(k, d, r), cost, spectrum)


def _title(config: "PeftConfig") -> str:
    if config.peft_type != "MORA":
        return f"LoRA, r={config.r}"
    options = [config.operator, config.layout, "fold" if config.fold else None]
    return f"MoRA ({', '.join(filter(None, options))}), r={config.r}"


def _totals(layers: list[Layer]) -> dict[str, Any]:
    sums = {
        name: sum(getattr(layer, name) for layer in layers) for name in ("parameters", "bytes", "budget", "cap_cost")
    }
    return {"layers": len(layers), **sums, "share_of_budget": sums["parameters"] / sums["budget"] if layers else 0.0}


def _print_table(title: str, layers: list[Layer]) -> None:
    from rich.console import Console
    from rich.table import Table

    kinds: dict[tuple, list[Layer]] = {}
    for layer in layers:
        kind = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", layer.name)
        kinds.setdefault((kind, layer.k, layer.d, layer.side), []).append(layer)
    trained = any(layer.spectrum for layer in layers)
    table = Table(title=title, title_justify="left")
    table.add_column("layers", overflow="fold")
    for column in (
        "n",
        "k",
        "d",
        "r_hat" if title.count("MoRA") else "rank",
        "parameters",
        "bytes",
        "of budget",
        "cap",
    ):
        table.add_column(column, justify="right")
    if trained:
        for column in ("eff. rank", "> 1 %", "largest"):
            table.add_column(column, justify="right")
    for (kind, k, d, side), members in kinds.items():
        table.add_row(kind, str(len(members)), str(k), str(d), str(side), *_sizes(members), *_spectra(members))
    table.add_section()
    table.add_row("total", str(len(layers)), "", "", "", *_sizes(layers), *_spectra(layers))
    # Into a file or a pipe a table is written whole, however wide.
    console = Console() if Console().is_terminal else Console(width=160)
    console.print(table)
    console.print(
        "of budget: parameters as a share of a LoRA of rank r; cap: parameters that r_hat ≤ min(k, d) leaves unused"
    )
    if trained:
        console.print("means over layers: effective rank of ΔW, singular values above 1 % of the largest, the largest")


def _sizes(layers: list[Layer]) -> list[str]:
    totals = _totals(layers)
    cost = f"-{totals['cap_cost']:,}" if totals["cap_cost"] else "-"
    return [f"{totals['parameters']:,}", f"{totals['bytes']:,}", f"{totals['share_of_budget']:.1%}", cost]


def _spectra(layers: list[Layer]) -> list[str]:
    spectra = [layer.spectrum for layer in layers if layer.spectrum]
    if not spectra:
        return []
    rank, above, largest = (
        sum(values) / len(spectra)
        for values in zip(*((s.effective_rank, s.above_1_percent, s.largest[0]) for s in spectra), strict=True)
    )
    return [f"{rank:.1f}", f"{above:.1f}", f"{largest:.3g}"]
