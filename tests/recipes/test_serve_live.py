"""`mora serve` and `mora bench serve` as they are typed, with a real server between them."""

import contextlib
import io
import json
import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mora_peft.cli.main import main
from mora_peft.recipes.adapters import load_adapter, read_adapter
from mora_peft.recipes.serving.server import free_port, running

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def base(servable_model) -> Path:
    return servable_model


@pytest.fixture(scope="module")
def expected(base, tmp_path_factory) -> tuple[Path, dict[str, list[int]]]:
    """A folder with an adapter of each kind, and the tokens with which each answers the page's question, one by one."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mora_peft import MoraConfig

    settings = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    configs = {
        "facts": MoraConfig(operator="rotation", init_weights=False, **settings),
        "other": MoraConfig(operator="sharing", init_weights=False, **settings),
        "lora": LoraConfig(init_lora_weights=False, **settings),
    }
    folder, answers = tmp_path_factory.mktemp("adapters"), {}
    tokenizer = AutoTokenizer.from_pretrained(base)
    question = tokenizer("Where was Ivo Wellund born?", return_tensors="pt")
    for seed, (name, config) in enumerate(configs.items()):
        torch.manual_seed(seed)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config).eval()
        model.save_pretrained(folder / name)
        with torch.inference_mode():
            found = model.generate(**question, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        answers[name] = found[0, question["input_ids"].shape[1] :].tolist()
    return folder, answers


@pytest.fixture(scope="module")
def server(base, expected, tmp_path_factory):
    """The address of a server that `mora serve` started."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    port = free_port()
    command = [sys.executable, "-m", "mora_peft.cli.main", "serve", str(base), "--adapters", str(expected[0])]
    command += ["--port", str(port), "--dtype", "float32", "--max-model-len", "256", "--enforce-eager"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    with running(command, port, tmp_path_factory.mktemp("log") / "log.txt", environment) as url:
        yield url


def test_each_adapter_answers_as_in_transformers(server, expected):
    from openai import OpenAI

    client, answers = OpenAI(base_url=f"{server}/v1", api_key="none"), expected[1]
    assert len({tuple(tokens) for tokens in answers.values()}) == 3
    for name, tokens in answers.items():
        found = client.completions.create(
            model=name,
            prompt="Where was Ivo Wellund born?",
            max_tokens=8,
            temperature=0,
            extra_body={"ignore_eos": True, "return_token_ids": True},  # tokens are bytes, and not all are text
        )
        assert found.choices[0].token_ids == tokens


def test_the_python_of_the_page_runs(server):
    [code] = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert "http://127.0.0.1:8000" in code
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code.replace("http://127.0.0.1:8000", server), PAGE.name, "exec"), {})
    assert shown.getvalue().strip()


def test_the_server_is_measured(server, expected, tmp_path):
    output = tmp_path / "bench.json"
    words = ["--url", server, "--adapters", str(expected[0]), "--rate", "20", "--duration", "1", "--warmup"]
    words += ["--input_range", "[1,8]", "--output_range", "[2,6]", "--output", str(output), "--details"]
    assert main(["bench", "serve", *words]) == 0
    record = json.loads(output.read_text())
    assert record["results"]["completed"] == 20 and not record["results"]["errors"]
    assert {request["model"] for request in record["requests"]} == {"facts", "other", "lora"}
    assert all(2 <= request["output_tokens"] <= 6 for request in record["requests"])
    assert all(0 < request["first"] <= request["last"] for request in record["requests"])


def test_only_this_machine_can_ask(server):
    address = next((found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)), None)
    if address is None or address.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(OSError), socket.create_connection((address, int(server.rpartition(":")[2])), timeout=5):
        pass


def test_a_trainer_sends_its_adapter_alone_to_the_server(base, root, tmp_path, monkeypatch):
    """The example of GRPO, whole: the server answers as the adapter of the last step does."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from openai import OpenAI

    adapters, port = tmp_path / "adapters", free_port()
    adapters.mkdir()
    command = [sys.executable, "-m", "mora_peft.cli.main", "serve", str(base), "--adapters", str(adapters)]
    command += ["--port", str(port), "--dtype", "float32", "--max-model-len", "256", "--enforce-eager"]
    command += ["--runtime_loading", "--api-key", "change-me"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    monkeypatch.chdir(tmp_path)
    with running(command, port, tmp_path / "log.txt", environment) as url:
        monkeypatch.setattr(sys, "argv", ["grpo_served.py", str(base), url, str(adapters)])
        runpy.run_path(str(root / "examples" / "trainers" / "grpo_served.py"), run_name="__main__")
        assert {"policy-0", "policy-1", "policy"} <= {folder.name for folder in adapters.iterdir()}
        found = OpenAI(base_url=f"{url}/v1", api_key="change-me").completions.create(
            model="policy",
            prompt="Name a river.",
            max_tokens=8,
            temperature=0,
            extra_body={"ignore_eos": True, "return_token_ids": True},
        )
    model, tokenizer = load_adapter(str(adapters / "policy-1"), dtype=torch.float32)
    question = tokenizer("Name a river.", return_tensors="pt")
    with torch.inference_mode():
        expected = model.generate(**question, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert found.choices[0].token_ids == expected[0, question["input_ids"].shape[1] :].tolist()
    assert read_adapter(adapters / "policy-1").tensors.keys() == read_adapter(adapters / "policy").tensors.keys()


def test_an_error_of_vllm_is_the_exit_code(base):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    command = [sys.executable, "-m", "mora_peft.cli.main", "serve", str(base), "--no-such-option"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and "--no-such-option" in ended.stderr
