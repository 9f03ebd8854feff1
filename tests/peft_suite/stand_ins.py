"""Tiny random models in a local Hugging Face cache, under the ids that PEFT's tests ask the hub for."""

from pathlib import Path

import torch
import transformers as tf
from peft import LoraConfig

REVISION = "0" * 40  # the hub names snapshots by commit; any 40 hexadecimal digits do

# Two layers, four heads, and weights large enough that an adapter's effect stands out from rounding.
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
COMMON = {"vocab_size": 256, "max_position_embeddings": 128, "initializer_range": 0.1}
ENCODER = SIZES | COMMON
DECODER = ENCODER | {"num_key_value_heads": 2}
GPT = COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 0, "eos_token_id": 255}
OPT = ENCODER | {"ffn_dim": 64, "init_std": 0.1}
SEQ2SEQ = COMMON | {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}


DECODERS = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": tf.OPTConfig(**OPT),
    # The quantization tests count its layers, and bitsandbytes quantizes blocks of 64 weights.
    "peft-internal-testing/opt-125m": tf.OPTConfig(**OPT | {"num_hidden_layers": 12, "hidden_size": 64}),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": tf.GPT2Config(**GPT),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": tf.GPTJConfig(**GPT, rotary_dim=4),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": tf.LlamaConfig(**DECODER),
    "peft-internal-testing/tiny-dummy-qwen2": tf.Qwen2Config(**DECODER),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": tf.Gemma3TextConfig(**DECODER, head_dim=8),
    "trl-internal-testing/tiny-Llama4ForCausalLM": tf.Llama4TextConfig(
        **DECODER,
        intermediate_size_mlp=64,
        head_dim=8,
        num_local_experts=3,
        interleave_moe_layer_step=1,
        pad_token_id=0,
    ),
    "trl-internal-testing/tiny-GptOssForCausalLM": tf.GptOssConfig(
        **DECODER, head_dim=8, num_local_experts=3, num_experts_per_tok=2, pad_token_id=0, eos_token_id=1
    ),
}
ENCODER_DECODERS = {
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": tf.T5Config(
        vocab_size=256, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    ),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": tf.BartConfig(
        **SEQ2SEQ, encoder_attention_heads=4, decoder_attention_heads=4, init_std=0.1
    ),
}
ENCODERS = {
    "peft-internal-testing/tiny-random-BertModel": tf.BertConfig(**ENCODER),
    "peft-internal-testing/tiny-random-RobertaModel": tf.RobertaConfig(**ENCODER),
    "peft-internal-testing/tiny-random-DebertaModel": tf.DebertaConfig(**ENCODER),
    "peft-internal-testing/tiny-random-DebertaV2Model": tf.DebertaV2Config(**ENCODER),
}
CLASSIFIERS = {
    "peft-internal-testing/tiny-random-BertForSequenceClassification": tf.BertConfig(**ENCODER),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": tf.RobertaConfig(**ENCODER),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": tf.LlamaConfig(**DECODER, num_labels=1),
}
MODELS = [
    (tf.AutoModelForCausalLM, DECODERS),
    (tf.AutoModelForSeq2SeqLM, ENCODER_DECODERS),
    (tf.AutoModel, ENCODERS),
    (tf.AutoModelForSequenceClassification, CLASSIFIERS),
]


def write_stand_ins(cache: Path) -> None:
    """Store every model above, each built from seed 0, and the one adapter configuration, as if downloaded."""
    for auto_class, configs in MODELS:
        for repository, config in configs.items():
            torch.manual_seed(0)
            auto_class.from_config(config).save_pretrained(_snapshot(cache, repository, "main"))
    # test_config.py reads the configuration of a LoRA from a branch.
    adapter = _snapshot(cache, "peft-internal-testing/tiny-opt-lora-revision", "test")
    LoraConfig(task_type="CAUSAL_LM").save_pretrained(adapter)


def _snapshot(cache: Path, repository: str, branch: str) -> Path:
    """The folder of a repository's only commit, in the layout that huggingface_hub documents."""
    folder = cache / ("models--" + repository.replace("/", "--"))
    reference = folder / "refs" / branch
    reference.parent.mkdir(parents=True)
    reference.write_text(REVISION)
    return folder / "snapshots" / REVISION
