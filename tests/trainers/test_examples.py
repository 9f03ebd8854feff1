"""The examples run from top to bottom, and leave an adapter that computes what the trained model does."""

import json
import runpy
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
import transformers as tf

from mora_peft.serving.reading import read_served

SCRIPTS = {
    "trainer": {"base_class": tf.AutoModelForCausalLM},
    "sft": {"base_class": tf.AutoModelForCausalLM},
    "dpo": {"base_class": tf.AutoModelForCausalLM},
    "grpo": {"base_class": tf.AutoModelForCausalLM},
    "reward": {"base_class": tf.AutoModelForSequenceClassification, "num_labels": 1, "also_trained": "score"},
}


def test_every_example_is_run(root):
    assert {path.stem for path in (root / "examples" / "trainers").glob("*.py")} == {*SCRIPTS, "grpo_served"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_trains_and_saves_an_adapter(name, root, tiny_model, tmp_path, monkeypatch, check_run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", tiny_model, str(tmp_path / "adapter")])
    left = runpy.run_path(str(root / "examples" / "trainers" / f"{name}.py"), run_name="__main__")
    check_run(left["trainer"], tmp_path / "adapter", **SCRIPTS[name])


class Server(BaseHTTPRequestHandler):
    """vLLM's completions and its endpoint for adapters, which our plugin reads: what was loaded is written down."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer change-me"
        if self.path == "/v1/load_lora_adapter":
            assert (body["lora_name"], body["load_inplace"]) == ("policy", True)
            self.server.loaded.append(read_served(self.server.folder / body["lora_path"], 2**20).matrices)
            answer = {}
        else:
            assert (self.path, body["model"], body["return_token_ids"]) == ("/v1/completions", "policy", True)
            answer = {"choices": [self.choice(prompt, body["max_tokens"]) for prompt in body["prompt"]]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def choice(self, prompt: str, count: int) -> dict:
        tokens = torch.randint(1, 90, (1 + len(self.server.given) % count,)).tolist()  # each of another length
        self.server.given.append(tokens)
        return {
            "prompt_token_ids": [1 + ord(letter) % 90 for letter in prompt],
            "token_ids": tokens,
            "logprobs": {"token_logprobs": [-4.0] * len(tokens)},
        }

    def log_message(self, *_) -> None: ...


def test_the_adapter_alone_goes_to_a_server_after_each_step(root, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.folder, server.loaded, server.given = tmp_path / "adapters", [], []
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(sys, "argv", ["grpo_served.py", tiny_model, url, str(server.folder)])
    try:
        left = runpy.run_path(str(root / "examples" / "trainers" / "grpo_served.py"), run_name="__main__")
    finally:
        server.shutdown()
        server.server_close()
    first, second = server.loaded
    assert not any(M.any() for M in first.values())
    assert all(M.any() for M in second.values())
    trained = read_served(server.folder / "policy", 2**20).matrices
    state = left["trainer"].model.state_dict()
    assert all(torch.equal(M, state[f"base_model.model.{name}.mora_M.default"]) for name, M in trained.items())
