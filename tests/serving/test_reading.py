"""Adapters are read as the tuner applies them, and whatever is wrong with a folder is said in one sentence."""

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import nn

from mora_peft import MoraConfig
from mora_peft.errors import UserError
from mora_peft.operators import LAYOUTS, MORA_TYPES, r_hat_for
from mora_peft.serving.reading import read_served
from mora_peft.tuner import MoraLayer
from mora_peft.tuner.files import CONFIG, WEIGHTS

SHAPES = {"layers.0.up": (6, 9), "layers.0.down": (9, 6), "layers.1.up": (6, 9), "layers.1.down": (9, 6)}
#: More bytes than any file here has.
LIMIT = 2**20
OPERATORS = [
    *({"operator": "sharing", "layout": layout} for layout in LAYOUTS),
    *({"operator": name, "fold": fold} for name in ("rotation", "decoupling") for fold in (False, True)),
    {"operator": "truncation"},
]


def two_layers() -> nn.Module:
    layer = lambda: nn.ModuleDict({"up": nn.Linear(6, 9), "down": nn.Linear(9, 6)})  # noqa: E731
    return nn.ModuleDict({"layers": nn.ModuleList([layer(), layer()])})


def save(folder: Path, config: MoraConfig | LoraConfig) -> nn.Module:
    """A random adapter in `folder`, as PEFT saves it, and the model that it was saved from."""
    model = get_peft_model(two_layers(), config)
    model.save_pretrained(folder)
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    save(tmp_path, MoraConfig(r=2, target_modules=["up", "down"], init_weights=False))
    return tmp_path


def change_config(folder: Path, **fields) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(folder: Path, change) -> None:
    state = load_file(folder / WEIGHTS)
    save_file(change(state), folder / WEIGHTS)


# What is read.


@pytest.mark.parametrize("options", OPERATORS, ids=lambda options: "-".join(map(str, options.values())))
def test_it_is_what_the_tuner_applies(options, tmp_path):
    pattern = {"layers.1.up": 3, "up": 1, r"layers\.\d.down": 4}
    config = MoraConfig(
        r=2, target_modules=["up", "down"], init_weights=False, scaling=0.5, rank_pattern=pattern, **options
    )
    model = save(tmp_path, config)
    adapter = read_served(tmp_path, LIMIT)
    layers = {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if isinstance(layer, MoraLayer)
    }
    assert adapter.matrices.keys() == layers.keys() == SHAPES.keys()
    for name, layer in layers.items():
        torch.testing.assert_close(adapter.matrices[name], layer.mora_M["default"].data, rtol=0, atol=0)
        assert adapter.operator_for(name, *SHAPES[name]) == layer.operator["default"]
        assert adapter.config.scaling == layer.scaling["default"]
        assert adapter.r_for(name) == config.r_for(name) == layer.r["default"]


def authors_checkpoint(folder: Path, **fields) -> Path:
    """A checkpoint as the authors' fork of PEFT saves it: r̂ is not capped, M stands under both names."""
    even = fields.get("mora_type") == 6
    state = {}
    for name, (k, d) in SHAPES.items():
        r_hat = r_hat_for(k, d, 12, even=even, cap=False)
        for part in ("A", "B"):
            state[f"base_model.model.{name}.lora_{part}.weight"] = torch.full((r_hat, r_hat), float(len(state) // 2))
    fields = {"peft_type": "LORA", "use_mora": True, "r": 12, "lora_alpha": 64, "lora_dropout": 0.0, "bias": "none",
              "target_modules": ["up", "down"], "modules_to_save": None, "rank_pattern": {}, **fields}  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(fields))
    save_file(state, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize("number", MORA_TYPES)
def test_checkpoints_of_the_authors_are_mora(number, tmp_path):
    adapter = read_served(authors_checkpoint(tmp_path, mora_type=number), LIMIT)
    assert (adapter.config.operator, adapter.config.layout) == MORA_TYPES[number]
    assert adapter.matrices.keys() == SHAPES.keys()
    for name, (k, d) in SHAPES.items():
        assert adapter.operator_for(name, k, d).r_hat > min(k, d)


@pytest.mark.parametrize("config", [LoraConfig(r=2, target_modules=["up"]), LoraConfig(r=2, target_modules=["down"])])
def test_a_lora_is_left_to_vllm(config, tmp_path):
    save(tmp_path, config)
    assert read_served(tmp_path, LIMIT) is None


@given(
    names=st.lists(st.from_regex(r"(model\.)?layers\.[0-3]\.(up|down|qup)", fullmatch=True), min_size=1, unique=True),
    patterns=st.lists(
        st.sampled_from(
            ["up", "down", "layers.1.up", r"layers\.[12]\..*", "layers.(0|1).up", "1.*", "model.layers.2.up"]
        ),
        unique=True,
    ),
)
def test_ranks_follow_the_patterns_as_in_the_tuner(names, patterns, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    pattern = {key: r for r, key in enumerate(patterns, start=2)}
    (folder / CONFIG).write_text(json.dumps({"peft_type": "MORA", "r": 1, "rank_pattern": pattern}))
    save_file({f"base_model.model.{name}.mora_M": torch.zeros(1, 1) for name in names}, folder / WEIGHTS)
    adapter = read_served(folder, LIMIT)
    for name in names:
        assert adapter.r_for(name) == adapter.config.r_for(name) == pattern.get(get_pattern_key(pattern, name), 1)


# What is refused.


def write_pickle(folder: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Payload(folder / "ran")))


class Payload:
    """Unpickling it makes the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def grow(folder: Path, size: int) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(size)


def write_header(folder: Path, header: bytes, data: bytes = b"") -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + data)


def header(shape, offsets, dtype="F32", name="base_model.model.layers.0.up.mora_M") -> bytes:
    return json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


def make_pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def replaced(value):
    return lambda state: {key: value(tensor) for key, tensor in state.items()}


def spoilt(tensor, number):
    tensor[-1, -1] = number
    return tensor


KEY = "base_model.model.layers.0.up."
#: What is done to a good adapter, and words of the sentence that it leads to.
REFUSED = {
    "no configuration": (lambda f: (f / CONFIG).unlink(), "has no adapter_config.json"),
    "no JSON": (lambda f: (f / CONFIG).write_text("{"), "not valid JSON"),
    "no text": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe"), "not valid JSON"),
    "deep JSON": (lambda f: (f / CONFIG).write_text("[" * 100_000), "not valid JSON"),
    "a list": (lambda f: (f / CONFIG).write_text("[]"), "must hold a JSON object"),
    "a giant configuration": (lambda f: os.truncate(f / CONFIG, 2**40), "at most"),
    "a pipe as configuration": (lambda f: make_pipe(f, CONFIG), "not a regular file"),
    "unknown operator": (lambda f: change_config(f, operator="gating"), "Unknown operator 'gating'"),
    "operator of another kind": (lambda f: change_config(f, operator=["rotation"]), "not the configuration"),
    "r of another kind": (lambda f: change_config(f, r="8"), "`r` should be a positive integer"),
    "no r": (lambda f: change_config(f, r=0), "`r` should be a positive integer"),
    "scaling without end": (lambda f: change_config(f, scaling=float("inf")), "expected a finite number"),
    "scaling of another kind": (lambda f: change_config(f, scaling="2"), "expected a finite number"),
    "a switch of LoRA's": (lambda f: change_config(f, use_dora=True), "use_dora"),
    "modules trained whole": (lambda f: change_config(f, modules_to_save=["head"]), "modules_to_save"),
    "trained biases": (lambda f: change_config(f, bias="all"), "(bias)"),
    "a pattern that takes for ever": (lambda f: change_config(f, rank_pattern={"(.*)*x": 4}), "too intricate"),
    "a pattern of many stars": (lambda f: change_config(f, rank_pattern={".*a.*b.*c": 4}), "too intricate"),
    "a pattern of many ways": (lambda f: change_config(f, rank_pattern={"(a|aa)(a|aa)(a|aa)b": 4}), "too intricate"),
    "a pattern of many doubts": (lambda f: change_config(f, rank_pattern={"a?a?a?b": 4}), "too intricate"),
    "too many patterns": (lambda f: change_config(f, rank_pattern={f".*{n}": 4 for n in range(33)}), "33 regular"),
    "a pattern that is none": (lambda f: change_config(f, rank_pattern={"(up": 4}), "bad rank_pattern"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "the adapter's weights are missing"),
    "a pickle": (lambda f: write_pickle(f, "adapter_model.bin"), "is a pickle"),
    "another pickle": (lambda f: write_pickle(f, "adapter_model.pt"), "is a pickle"),
    "a pickle in disguise": (lambda f: write_pickle(f, WEIGHTS), "is a pickle with the name"),
    "empty weights": (lambda f: grow(f, 0), "damaged or cut short"),
    "weights cut short": (lambda f: grow(f, (f / WEIGHTS).stat().st_size - 1), "damaged or cut short"),
    "weights with more behind them": (lambda f: grow(f, (f / WEIGHTS).stat().st_size + 1), "damaged or cut short"),
    "giant weights": (lambda f: grow(f, 2**42), "at most"),
    "a pipe as weights": (lambda f: make_pipe(f, WEIGHTS), "not a regular file"),
    "a folder as weights": (lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), "(Is a directory)"),
    "a header longer than the file": (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 7 + b"\0"), "damaged or cut short"),
    "more claimed than there is": (lambda f: write_header(f, header([2**20, 2**20], [0, 2**42])), "damaged or cut"),
    "sizes beyond all numbers": (lambda f: write_header(f, header([2**63, 2**63], [0, 4])), "damaged or cut short"),
    "a type that torch has not": (lambda f: write_header(f, header([1], [0, 1], "F8_X")), "damaged or cut short"),
    "no tensors": (lambda f: write_header(f, b"{}"), "holds no tensors"),
    "not square": (lambda f: change_weights(f, replaced(lambda M: M[:-1].clone())), "one square matrix"),
    "three sides": (lambda f: change_weights(f, replaced(lambda M: M[None].clone())), "one square matrix"),
    "an empty M": (lambda f: change_weights(f, replaced(lambda M: M[:0, :0].clone())), "one square matrix"),
    "NaN": (lambda f: change_weights(f, replaced(lambda M: spoilt(M, float("nan")))), "NaN or infinity"),
    "infinity": (lambda f: change_weights(f, replaced(lambda M: spoilt(M, float("-inf")))), "NaN or infinity"),
    "whole numbers": (lambda f: change_weights(f, replaced(torch.Tensor.int)), "has the type torch.int32"),
    "a bias beside M": (lambda f: change_weights(f, lambda s: s | {KEY + "bias": torch.ones(9)}), "only MoRA's"),
    "what DoRA trains": (lambda f: change_weights(f, lambda s: s | {KEY + "magnitude": torch.ones(9)}), "only MoRA's"),
    "LoRA's names": (lambda f: change_weights(f, lambda s: {KEY + "lora_A.weight": torch.ones(2, 2)}), "only MoRA's"),
    "a name like a path": (lambda f: change_weights(f, lambda s: {KEY + "/../x.mora_M": torch.ones(2, 2)}), "strange"),
    "a name with a line break": (lambda f: change_weights(f, lambda s: {"a\nb.mora_M": torch.ones(2, 2)}), "strange"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_sentence(case, folder):
    damage, words = REFUSED[case]
    damage(folder)
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")) as error:
        read_served(folder, LIMIT)
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 600
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mora_type": 7}, "Unknown `mora_type` 7"),
        ({"mora_type": None}, "must be a number"),
        ({"mora_type": 6, "use_dora": True}, "use_dora"),
    ],
)
def test_a_checkpoint_of_the_authors_that_is_not_known_is_refused(fields, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_served(authors_checkpoint(tmp_path, **fields), LIMIT)


def test_a_pair_under_the_authors_name_is_refused(tmp_path):
    authors_checkpoint(tmp_path, mora_type=1)
    change_weights(tmp_path, lambda state: {k: t + ("lora_B" in k) for k, t in state.items()})
    with pytest.raises(UserError, match="lora_B that is not its lora_A"):
        read_served(tmp_path, LIMIT)


def test_a_file_larger_than_the_model_can_need_is_not_read(folder):
    size = (folder / WEIGHTS).stat().st_size
    assert read_served(folder, size)
    with pytest.raises(UserError, match=f"{size} bytes, but at most {size - 1}"):
        read_served(folder, size - 1)


@pytest.mark.parametrize(("k", "d"), [(6, 40), (9, 9), (600, 900)])
def test_another_base_model_is_refused(k, d, folder):
    with pytest.raises(UserError, match=r"side 4, but with .* it should be"):
        read_served(folder, LIMIT).operator_for("layers.0.up", k, d)


@given(data=st.data())
def test_any_damage_to_the_weights_is_refused_or_harmless(data, tmp_path_factory):
    """Whatever the bytes, reading ends in an adapter or in a sentence, never in another exception."""
    folder = tmp_path_factory.mktemp("adapter")
    save(folder, MoraConfig(r=1, target_modules=["up"]))
    content = bytearray((folder / WEIGHTS).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / WEIGHTS).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_served(folder, LIMIT)
    except UserError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(MoraConfig().to_dict())


@given(fields=st.dictionaries(st.sampled_from([*FIELDS, "use_mora"]), JSON, min_size=1, max_size=3))
def test_any_configuration_is_refused_or_served(fields, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    save(folder, MoraConfig(r=1, target_modules=["up"]))
    change_config(folder, **fields)
    try:
        adapter = read_served(folder, LIMIT)
        if adapter is not None:
            adapter.operator_for("layers.0.up", 6, 9)
    except UserError:
        pass
