"""`mora serve`: what it makes of a folder of adapters, what it leaves to the user, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.cli import serve as command
from mora_peft.cli._parser import BAD_INPUT
from mora_peft.errors import UserError
from mora_peft.recipes.serving import launch
from mora_peft.recipes.serving.folder import RANKS, adapters_in, demand_of
from mora_peft.recipes.serving.launch import Machine, ServeConfig, groups, option_of, prepare
from mora_peft.tuner.files import WEIGHTS

SMALL = Machine(accelerator=False, cores=2, memory=40 * 2**30, node=16 * 2**30)
LARGE = Machine(accelerator=True, cores=64, memory=512 * 2**30, node=256 * 2**30)


@pytest.fixture(autouse=True)
def vllm_is_there(monkeypatch):
    """Command lines are made here whether or not vLLM is installed."""
    monkeypatch.setattr(launch, "installed", lambda: "0.32.0")


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, fields in {
        "small": {"peft_type": "MORA", "r": 8},
        "patterned": {"peft_type": "MORA", "r": 4, "rank_pattern": {"down_proj": 40}},
        "lora": {"peft_type": "LORA", "r": 16},
    }.items():
        write(tmp_path / name, fields)
    return tmp_path


def write(folder: Path, fields: dict, size: int = 100) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    (folder / "adapter_model.safetensors").write_bytes(b"0" * size)
    return folder


def options(config: ServeConfig, environment=None, machine=LARGE) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The options of the command that serves `config`, by name, and its environment."""
    words, variables = prepare(config, environment or {}, machine)
    assert words[0] == sys.executable and words[words.index("-m") + 1] == launch.SERVER
    found = groups(words[words.index(launch.SERVER) + 1 :])
    assert len({option_of(first) for first, *_ in found}) == len(found), "an option is given twice"
    return {option_of(first): values for first, *values in found}, variables


def test_the_server_has_room_for_every_adapter_of_the_folder(tiny_model, folder):
    found, variables = options(ServeConfig(tiny_model, str(folder)))
    assert found["model"] == [tiny_model]
    assert found["max-lora-rank"] == ["64"]
    assert found["enable-lora"] == [] and found["host"] == ["127.0.0.1"]
    assert int(found["max-cpu-loras"][0]) >= int(found["max-loras"][0]) >= 3
    assert int(found["shutdown-timeout"][0]) > 0
    assert variables["MORA_ADAPTERS"] == str(folder.resolve())


def test_the_linear_layers_are_those_of_the_base(tiny_model):
    found, _ = options(ServeConfig(tiny_model))
    names = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert found["lora-target-modules"] == names


@given(ranks=st.lists(st.integers(1, RANKS[-1]), min_size=1, max_size=4))
def test_the_rank_is_the_smallest_that_vllm_takes_and_that_holds_all(ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    for number, r in enumerate(ranks):
        write(folder / str(number), {"peft_type": "MORA", "r": r})
    config = ServeConfig("owner/model", vllm=["--lora-modules", *(f"a={path}" for path in folder.iterdir())])
    config.vllm += ["--lora-target-modules", "q_proj"]
    [rank] = options(config)[0]["max-lora-rank"]
    assert int(rank) in RANKS and int(rank) >= max(ranks)
    assert not [smaller for smaller in RANKS if max(*ranks, 8) <= smaller < int(rank)]


def test_an_option_of_the_user_wins(tiny_model, folder):
    config = ServeConfig(tiny_model, str(folder))
    for name in options(config)[0].keys() - {"model"}:
        for word in (f"--{name}", f"--{name.replace('-', '_')}"):
            value = ["48"] if name.startswith("max") else ["given"]
            found, _ = options(ServeConfig(tiny_model, str(folder), vllm=[word, *value]))
            assert found[name] == value
    found, _ = options(ServeConfig(tiny_model, vllm=["--no-enable-lora", "--port=8001", "-tp", "2"]))
    assert "enable-lora" not in found and "no-enable-lora" in found and found["tp"] == ["2"]


def test_more_slots_keep_more_adapters(tiny_model, folder):
    found, _ = options(ServeConfig(tiny_model, str(folder), vllm=["--max-loras", "4000"]))
    assert int(found["max-cpu-loras"][0]) >= 4000
    with pytest.raises(UserError, match="--max-loras must be a whole number"):
        options(ServeConfig(tiny_model, str(folder), vllm=["--max-loras", "many"]))


def test_adapters_in_memory_stay_within_half_of_it(tiny_model, tmp_path):
    for number in range(100):
        write(tmp_path / f"a{number}", {"peft_type": "MORA", "r": 8}, size=1000)
    machine = Machine(accelerator=False, cores=8, memory=120_000, node=120_000)
    found, _ = options(ServeConfig(tiny_model, str(tmp_path)), machine=machine)
    assert int(found["max-cpu-loras"][0]) * 1000 <= 60_000


def test_few_cores_are_left_to_all_processes_and_the_users_variables_win(tiny_model):
    _, variables = options(ServeConfig(tiny_model), machine=SMALL)
    assert variables["OMP_NUM_THREADS"] == "1" and variables["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "4"
    own = {"OMP_NUM_THREADS": "2", "VLLM_CPU_KVCACHE_SPACE": "1", "OTHER": "kept"}
    _, variables = options(ServeConfig(tiny_model), own, SMALL)
    assert own.items() <= variables.items()
    _, variables = options(ServeConfig(tiny_model), {}, LARGE)
    assert not any(name.startswith(("OMP", "VLLM_CPU")) for name in variables)
    _, variables = options(ServeConfig(tiny_model, vllm=["--kv-cache-memory-bytes", "1G"]), {}, SMALL)
    assert "VLLM_CPU_KVCACHE_SPACE" not in variables


def test_loading_at_run_time_is_off_unless_asked_for(tiny_model, folder):
    _, variables = options(ServeConfig(tiny_model, str(folder)), {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"})
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"


@pytest.mark.parametrize(
    "vllm, environment", [(["--api-key", "k"], {}), (["--api-key=k"], {}), ([], {"VLLM_API_KEY": "k"})]
)
def test_loading_at_run_time_needs_a_key_and_a_folder(tiny_model, folder, vllm, environment):
    _, variables = options(ServeConfig(tiny_model, str(folder), runtime_loading=True, vllm=vllm), environment)
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    with pytest.raises(UserError, match="API key"):
        options(ServeConfig(tiny_model, str(folder), runtime_loading=True), {"VLLM_API_KEY": ""})
    with pytest.raises(UserError, match="--adapters"):
        options(ServeConfig(tiny_model, runtime_loading=True, vllm=vllm), environment)


def test_the_command_is_shown_without_its_keys(tiny_model):
    config = ServeConfig(tiny_model, vllm=["--api-key", "secret", "hidden", "--port", "8001"])
    words, _ = prepare(config, {}, LARGE)
    said = launch.shown(words, {"MORA_ADAPTERS": "my adapters"})
    assert said.startswith(f"env 'MORA_ADAPTERS=my adapters' python -m {launch.SERVER} --model")
    assert said.endswith("--api-key ... --port 8001")
    assert "secret" in words and "secret" not in said and "hidden" not in said


@pytest.mark.parametrize("missing", ["/no/such/model", "./model", "a/b/c"])
def test_a_model_that_is_not_there_is_named(missing):
    with pytest.raises(UserError, match=missing):
        options(ServeConfig(missing))


def test_a_folder_that_is_not_there_is_named(tiny_model):
    with pytest.raises(UserError, match="no/adapters"):
        options(ServeConfig(tiny_model, "no/adapters"))


def test_a_broken_adapter_is_passed_over_with_its_reason(tiny_model, folder, capsys):
    (folder / "small" / "adapter_config.json").write_text("{")
    write(folder / "giant", {"peft_type": "LORA", "r": 4096})
    write(folder / "prompt", {"peft_type": "PROMPT_TUNING"})
    found, _ = options(ServeConfig(tiny_model, str(folder)))
    assert found["max-lora-rank"] == ["64"]
    said = capsys.readouterr().err
    assert all(name in said for name in ("small", "giant", "prompt")) and len(said.splitlines()) == 3


def test_fewer_adapters_in_memory_are_fewer_slots(tiny_model, tmp_path):
    found, _ = options(ServeConfig(tiny_model, str(tmp_path), vllm=["--max-cpu-loras", "4"]))
    assert found["max-loras"] == ["4"]


def test_an_adapter_that_cannot_be_served_does_not_make_the_slots(tiny_model, folder):
    (write(folder / "giant", {"r": 512}) / WEIGHTS).unlink()
    assert options(ServeConfig(tiny_model, str(folder)))[0]["max-lora-rank"] == ["64"]


def test_only_folders_with_an_adapter_and_a_plain_name_are_adapters(folder):
    (folder / "notes").mkdir()
    (folder / "file").write_text("")
    write(folder / ".hidden", {"r": 8})
    write(folder / "with space", {"r": 8})
    assert list(adapters_in(folder)) == ["lora", "patterned", "small"]
    assert demand_of(adapters_in(folder).values()).count == 3


@pytest.mark.parametrize("found, words", [("0.31.1", "0.31.1"), ("0.33.0", "0.33.0"), (None, "not installed")])
def test_vllm_must_be_there_in_the_right_version(found, words, monkeypatch, tiny_model):
    monkeypatch.setattr(launch, "installed", lambda: found)
    with pytest.raises(UserError, match=words) as raised:
        options(ServeConfig(tiny_model))
    assert "vllm>=0.32,<0.33" in str(raised.value)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("M", ServeConfig("M")),
        ("M --port 8001 --enforce-eager", ServeConfig("M", vllm=["--port", "8001", "--enforce-eager"])),
        ("--adapters F M -tp 2", ServeConfig("M", "F", vllm=["-tp", "2"])),
        ("M -tp 2 --adapters F --seed -1", ServeConfig("M", "F", vllm=["-tp", "2", "--seed", "-1"])),
        ("M --runtime-loading --api-key k", ServeConfig("M", runtime_loading=True, vllm=["--api-key", "k"])),
        ("M --lora-modules a=A b=B --adapters=F", ServeConfig("M", "F", vllm=["--lora-modules", "a=A", "b=B"])),
    ],
)
def test_what_is_not_ours_goes_to_vllm(line, expected, monkeypatch):
    served = []
    monkeypatch.setattr(command, "serve", served.append)
    assert command.main(line.split()) == 0
    assert served == [expected]


def test_options_of_vllm_may_stand_in_a_file(tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr(command, "serve", served.append)
    (tmp_path / "serve.yaml").write_text("model: M\nadapters: F\nvllm: [--port, '8001']\n")
    assert command.main(["--config", str(tmp_path / "serve.yaml"), "--enforce-eager"]) == 0
    assert served == [ServeConfig("M", "F", vllm=["--port", "8001", "--enforce-eager"])]


@pytest.mark.parametrize("line", ["", "--port 8001", "M N", "M --runtime-loading perhaps"])
def test_a_command_without_sense_gets_one_sentence(line, capsys):
    assert command.main(line.split()) == BAD_INPUT
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
