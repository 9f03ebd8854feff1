"""What every test shares: the same examples on every run, no deadline on a busy machine, and no look at the hub."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# A name that is no folder here would be asked of the hub, with a minute of retries where there is no network.
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("mora", deadline=None, derandomize=True, max_examples=25, database=None)
settings.load_profile("mora")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """The folder of a two-layer Llama whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0} | {symbol: number for number, symbol in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=0,
        bos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def servable_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with heads as large as vLLM asks for, and weights large enough that answers vary."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("servable")
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    config = AutoConfig.from_pretrained(tiny_model, head_dim=32, initializer_range=0.3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
