"""A model and a tokenizer small enough to train in a second, built from nothing."""

from contextlib import contextmanager

import pytest


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


@pytest.fixture
def interrupted():
    """`with interrupted(step):` a training that ends there as by Ctrl-C."""
    from mora_peft.recipes.trainer import RecipeTrainer

    original = RecipeTrainer.training_step

    @contextmanager
    def interrupted(step: int):
        def stop(self, *args, **kwargs):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RecipeTrainer, "training_step", stop)
            yield

    return interrupted


@pytest.fixture
def settings(tiny_model, tmp_path) -> dict:
    """Settings of a small memorization run, as keywords of TrainConfig or CompareConfig."""
    return {
        "output": str(tmp_path / "run"),
        "model": tiny_model,
        "task": "memorization",
        "task_options": {"facts": 4, "pairs": 4, "digits": 4},
        "r": 2,
        "steps": 7,
        "batch_size": 3,  # not a divisor of the rows, so that epochs end in short batches
        "evaluate_every": 3,
        "checkpoint_every": 2,
    }
