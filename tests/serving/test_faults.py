"""A real server over HTTP: bad adapters are refused with a sentence, good ones answer, and nothing brings it down."""

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_reading import REFUSED

from mora_peft import MoraConfig
from mora_peft.recipes.serving.server import free_port, stop
from mora_peft.serving.folders import ADAPTERS
from mora_peft.tuner.files import CONFIG, WEIGHTS

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KEY = "a-key"
LONGEST = 512


def tiny_llama(root: Path, hidden: int):
    """Two layers on bytes, random, with weights large enough that answers vary."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(root / "configs" / "llama-bytes")
    config.update({"hidden_size": hidden, "head_dim": 32, "intermediate_size": 2 * hidden, "num_hidden_layers": 2})
    config.update({"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.3})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def save(model, folder: Path, config=None, seed: int = 0) -> Path:
    """A random adapter of `model` in `folder`."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model, config or MoraConfig(r=4, target_modules=LINEARS, init_weights=False))
    adapted.save_pretrained(folder)
    adapted.unload()
    return folder


@dataclass
class Server:
    """A running server, the folder that it serves, and the model that its adapters are made for."""

    child: subprocess.Popen
    port: int
    folder: Path
    model: torch.nn.Module = field(repr=False)

    def call(self, path: str, body: dict | None = None, key: str | None = KEY, method: str | None = None) -> tuple:
        """(status, parsed body)"""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def ask(self, name: str, tokens: int = 16) -> tuple[int, str]:
        """(200, greedy answer) or (status, message)"""
        body = {"model": name, "prompt": "Once upon a time", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        status, answer = self.call("/v1/completions", body)
        return status, answer["choices"][0]["text"] if status == 200 else answer["error"]["message"]

    def load(self, name: str, path: Path | str) -> tuple[int, str]:
        """(200, "") or (status, message)"""
        status, answer = self.call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        return status, "" if status == 200 else answer["error"]["message"]

    def stream(self, name: str, tokens: int) -> http.client.HTTPResponse:
        """An answer that is coming, some of it read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = {
            "model": name,
            "prompt": "Once",
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status == 200 and response.readline().startswith(b"data:")
        response.connection = connection
        return response

    def metrics(self, name: str) -> list[str]:
        """The lines of /metrics that measure `name`."""
        return [line for line in self.call("/metrics")[1].splitlines() if line.startswith(name + "{")]

    def running(self) -> int:
        """Requests that the engine works on."""
        return sum(int(float(line.split()[-1])) for line in self.metrics("vllm:num_requests_running"))


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    """The one server of this file, with `good`, `sharing` and `lora` in its folder."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("served").resolve()
    shutil.copytree(root / "configs" / "llama-bytes", base, dirs_exist_ok=True)
    model = tiny_llama(root, 64)
    model.save_pretrained(base)
    save(model, folder / "good")
    save(model, folder / "sharing", MoraConfig(r=4, operator="sharing", target_modules=LINEARS, init_weights=False), 1)
    save(model, folder / "lora", LoraConfig(r=4, target_modules=LINEARS, init_lora_weights=False), 2)
    port = free_port()
    command = [
        *(
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(base),
            "--served-model-name",
            "base",
        ),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", str(LONGEST)),
        *("--enable-lora", "--max-loras", "3", "--max-lora-rank", "8", "--lora-target-modules", *LINEARS),
        *("--shutdown-timeout", "30", "--enforce-eager", "--max-num-seqs", "8"),
    ]
    environment = {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_API_KEY": KEY,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        ADAPTERS: str(folder),
    }
    log = base / "log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
    started = Server(child, port, folder, model)
    try:
        end = time.monotonic() + 300
        while not _is_up(started):
            assert child.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)
        yield started
    finally:
        stop(child)


def _is_up(server: Server) -> bool:
    try:
        return server.call("/health")[0] == 200
    except OSError:
        return False


def is_sentence(text: str) -> bool:
    return 20 < len(text) < 600 and "\n" not in text and "Traceback" not in text


def text_of(stream: bytes) -> str:
    """What a stream says, however it was cut into pieces."""
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["text"] for event in events for choice in event["choices"])


def test_adapters_answer_by_name(server):
    answers = {name: server.ask(name) for name in ("base", "good", "sharing", "lora")}
    assert [status for status, _ in answers.values()] == [200] * 4
    assert len({text for _, text in answers.values()}) == 4
    status, listed = server.call("/v1/models")
    assert status == 200 and {model["id"] for model in listed["data"]} >= answers.keys()


def test_an_adapter_is_loaded_and_unloaded(server):
    assert server.ask("mine")[0] == 404
    assert server.load("mine", "good") == (200, "")
    assert server.ask("mine") == server.ask("good")
    assert server.load("mine", server.folder / "sharing")[0] == 400  # the name is taken
    assert server.call("/v1/unload_lora_adapter", {"lora_name": "mine"})[0] == 200
    assert server.call("/v1/unload_lora_adapter", {"lora_name": "mine"})[0] == 404
    assert server.ask("mine")[0] == 404


#: What can be wrong with a LoRA just as well.
COMMON = ["no JSON", "r of another kind", "NaN", "weights cut short", "a pickle"]


@pytest.mark.parametrize(
    ("case", "method"), [*((case, "good") for case in REFUSED), *((case, "lora") for case in COMMON)]
)
def test_a_damaged_adapter_is_refused(case, method, server):
    """By path and by name alike; the server and its other adapters go on."""
    folder = server.folder / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(server.folder / method, folder)
    REFUSED[case][0](folder)
    for status, message in (server.load("some", folder), server.ask("damaged")):
        # A folder without a configuration is no adapter, so there is none of that name.
        assert status == 400 or (status == 404 and not (folder / CONFIG).exists())
        assert is_sentence(message)
    assert not (folder / "ran").exists()
    assert server.ask("good", 1)[0] == 200


@pytest.mark.parametrize(
    "config", [MoraConfig(r=4, target_modules=["up_proj"]), LoraConfig(target_modules=["up_proj"])]
)
def test_an_adapter_of_another_model_is_refused(config, server, root):
    folder = save(tiny_llama(root, 96), server.folder / "other", config)
    status, message = server.load("other-model", folder)
    assert status == 400 and "does not fit the served model" in message
    assert server.ask("good", 1)[0] == 200
    shutil.rmtree(folder)


def test_an_adapter_of_a_larger_rank_is_refused(server):
    folder = save(server.model, server.folder / "large", MoraConfig(r=32, target_modules=["up_proj"]))
    status, message = server.ask("large")
    assert status == 400 and "r=32" in message
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "path", ["../base", "good/../../base", "/etc", "~", ".", "org/model", "link", "linked-weights", "x" * 5000]
)
def test_paths_that_lead_out_are_refused(path, server, tmp_path):
    outside = save(server.model, tmp_path / "outside")
    link, linked = server.folder / "link", server.folder / "linked-weights"
    link.symlink_to(outside)
    shutil.copytree(server.folder / "good", linked)
    (linked / WEIGHTS).unlink()
    (linked / WEIGHTS).symlink_to(outside / WEIGHTS)
    try:
        status, message = server.load("outside", path)
        assert status == 400 and is_sentence(message)
        assert server.ask(path)[0] in (400, 404)
        assert server.ask("outside")[0] == 404
    finally:
        link.unlink()
        shutil.rmtree(linked)


def test_a_replaced_adapter_takes_effect_by_itself(server):
    save(server.model, server.folder / "changing", seed=3)
    first = server.ask("changing")
    assert first == server.ask("changing")
    save(server.model, server.folder / "changing", seed=4)
    second = server.ask("changing")
    assert second[0] == 200 and second != first
    shutil.copytree(server.folder / "changing", server.folder / "fresh")
    assert second == server.ask("fresh")
    shutil.rmtree(server.folder / "changing")
    assert server.ask("changing")[0] == 404


def test_nothing_is_done_without_the_key(server):
    """All that vLLM offers of itself is closed, but for what tells how it is."""
    offered = server.call("/openapi.json")[1]["paths"]
    assert {"/v1/completions", "/v1/load_lora_adapter", "/adapters", "/invocations", "/tokenize"} <= offered.keys()
    calls = [(path, method.upper(), key) for path in offered for method in offered[path] for key in (None, "wrong")]
    answers = {call: server.call(call[0], {} if call[1] == "POST" else None, call[2], call[1])[0] for call in calls}
    unguarded = {path for (path, _, _), status in answers.items() if status != 401}
    assert unguarded == {"/health", "/load", "/metrics", "/ping", "/version"}


def test_bad_adapters_do_not_disturb_an_answer(server):
    expected = server.stream("good", 200).read()
    answer = server.stream("good", 200)
    folder = server.folder / "disturbing"
    for case in ("NaN", "weights cut short", "not square", "a pickle"):
        shutil.copytree(server.folder / "good", folder)
        REFUSED[case][0](folder)
        assert server.load("disturbing", folder)[0] == 400
        shutil.rmtree(folder)
    assert text_of(answer.read()) == text_of(expected) != ""


def test_a_name_that_many_ask_for_at_once_and_nobody_has(server):
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, _ in pool.map(server.ask, ["nobody"] * 24)} == {404}


def test_more_requests_than_places_wait_for_their_turn(server):
    """Many times what runs at once, for more adapters than slots: each is answered as it is alone."""
    names = ["good", "sharing", "lora", "base"]
    for name in ("second", "third"):
        shutil.copytree(server.folder / "sharing", server.folder / name)
        names.append(name)
    expected = {name: server.ask(name) for name in names}
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(server.ask, names * 16))
    assert answers == [expected[name] for name in names * 16]
    # However many adapters ran together, /metrics names the latest of them only, and does not grow.
    assert len(server.metrics("vllm:lora_requests_info")) == 1


def test_a_client_that_is_killed_frees_its_place(server):
    answers = [server.stream("good", LONGEST - 8) for _ in range(3)]
    assert server.running() > 0
    for answer in answers:  # as a killed process may leave it: cut off, without a farewell
        answer.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        answer.close()
        answer.connection.close()
    end = time.monotonic() + 10
    while server.running():
        assert time.monotonic() < end, "the engine still works for clients that are gone"
        time.sleep(0.1)
    assert server.ask("good", 1)[0] == 200


def test_sigterm_lets_running_answers_end(server):
    """The last test of this file: afterwards the server is gone."""
    expected = text_of(server.stream("good", 300).read())
    answer = server.stream("good", 300)
    server.child.send_signal(signal.SIGTERM)
    body = answer.read()
    assert text_of(body) == expected and body.rstrip().endswith(b"[DONE]")
    assert server.child.wait(timeout=60) == 0
