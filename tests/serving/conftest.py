"""One engine for all tests of a session, and the adapters that it serves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from served import CONFIGS, ENVIRONMENT, TRAINED, Engine, save_adapter, train_adapter


@pytest.fixture(scope="session")
def base_folder(root: Path) -> Path:
    """The base model's folder; skips where it, or vLLM, is absent."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = root / "models" / "SmolLM2-135M-Instruct"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="session")
def base_model(base_folder: Path, environment: None) -> Any:
    """The base model in Transformers, float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def adapters(base_folder: Path, base_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the adapters of `CONFIGS`, some trained and some random."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder, pad_token="<|im_end|>")
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: train_adapter(base_model, tokenizer, config, folder / name)
        if name in TRAINED
        else save_adapter(base_model, config, folder / name, seed)
        for seed, (name, config) in enumerate(CONFIGS.items())
    }


@pytest.fixture(scope="session")
def environment() -> Iterator[None]:
    """What vLLM's processes find in their environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def engine(base_folder: Path, environment: None) -> Iterator[Engine]:
    """The engine that all tests share."""
    engine = Engine(base_folder)
    yield engine
    engine.stop()
