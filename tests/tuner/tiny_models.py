"""One table of real architectures, tiny and random, that the tests of this folder run over.

Between them their targets are every kind of layer that MoRA adapts: linear, Conv1D, tables of embeddings, convolutions
over one and two dimensions, fused experts and an output layer.
"""

from dataclasses import dataclass, field

import torch
import transformers as tf
from peft import get_peft_model

from mora_peft import MoraConfig
from mora_peft.tuner import MoraLayer

# Weights large enough that an adapter's effect stands out from rounding; no dropout, so that training repeats itself.
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
COMMON = {"vocab_size": 96, "max_position_embeddings": 64}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NO_GPT_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@dataclass(frozen=True)
class Architecture:
    """How to build the model, what PEFT calls its task, and two linear layers of different shapes in it."""

    auto: type
    config: tf.PretrainedConfig
    task_type: str
    targets: tuple[str, ...]
    options: dict = field(default_factory=dict)  # further ones of the adapter

    def build(self, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        torch.manual_seed(0)
        return self.auto.from_config(self.config).to(dtype).eval()


ARCHITECTURES = {
    "llama": Architecture(
        tf.AutoModelForCausalLM,
        tf.LlamaConfig(**SIZES, **COMMON, num_key_value_heads=2, initializer_range=0.1, pad_token_id=0),
        "CAUSAL_LM",
        ("q_proj", "v_proj", "down_proj"),
    ),
    "gpt2": Architecture(
        tf.AutoModelForCausalLM,
        tf.GPT2Config(
            vocab_size=96,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.1,
            **NO_GPT_DROPOUT,
        ),
        "CAUSAL_LM",
        ("c_attn", "c_fc"),
    ),
    "opt": Architecture(
        tf.AutoModelForCausalLM,
        tf.OPTConfig(**SIZES, **COMMON, ffn_dim=48, word_embed_proj_dim=32, init_std=0.1, dropout=0.0),
        "CAUSAL_LM",
        ("q_proj", "fc2"),
    ),
    "bert": Architecture(
        tf.AutoModelForSequenceClassification,
        tf.BertConfig(**SIZES, **COMMON, initializer_range=0.1, **NO_DROPOUT),
        "SEQ_CLS",
        ("query", "output.dense"),
    ),
    "t5": Architecture(
        tf.AutoModelForSeq2SeqLM,
        tf.T5Config(
            vocab_size=96,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        ),
        "SEQ_2_SEQ_LM",
        ("q", "wo"),
    ),
    "gemma": Architecture(  # scales what it looks up
        tf.AutoModelForCausalLM,
        tf.Gemma3TextConfig(
            **SIZES,
            **COMMON,
            num_key_value_heads=2,
            head_dim=8,
            initializer_range=0.1,
            pad_token_id=0,
            tie_word_embeddings=False,
        ),
        "CAUSAL_LM",
        ("embed_tokens", "lm_head", "o_proj"),
    ),
    "mixtral": Architecture(
        tf.AutoModelForCausalLM,
        tf.MixtralConfig(**SIZES, **COMMON, num_key_value_heads=2, num_local_experts=3, initializer_range=0.1),
        "CAUSAL_LM",
        ("q_proj",),
        {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
    ),
    "vit": Architecture(
        tf.AutoModelForImageClassification,
        tf.ViTConfig(**SIZES, **NO_DROPOUT, image_size=8, patch_size=4, num_labels=5, initializer_range=0.1),
        None,
        ("patch_embeddings.projection", "attention.query", "q_proj"),
    ),
    "whisper": Architecture(
        tf.AutoModelForSpeechSeq2Seq,
        tf.WhisperConfig(
            vocab_size=96,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=6,
            max_source_positions=8,
            max_target_positions=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            init_std=0.1,
        ),
        None,
        ("conv1", "conv2", "fc2"),
    ),
}


#: Options of adapters that between them take every way through an operator.
OPERATORS = [
    {"operator": "sharing"},
    {"operator": "rotation"},
    {"operator": "rotation", "fold": True, "scaling": 0.5},
    {"operator": "decoupling"},
    {"operator": "truncation"},
]


def inputs(name: str, batch: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    tokens = 1 + (torch.arange(batch * 8).view(batch, 8) * 7) % 90
    numbers = torch.sin(torch.arange(batch * 192.0)).view(batch, 192).to(dtype)
    match name:
        case "vit":
            return {"pixel_values": numbers.view(batch, 3, 8, 8)}
        case "whisper":
            return {"input_features": numbers[:, :96].view(batch, 6, 16), "decoder_input_ids": tokens[:, :5]}
        case "t5":
            return {"input_ids": tokens, "decoder_input_ids": tokens[:, :5]}
    return {"input_ids": tokens}


def logits(model: torch.nn.Module, name: str, batch: int = 3, **kwargs) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(name, batch, model.dtype), **kwargs).logits


def mora_config(name: str, **options) -> MoraConfig:
    architecture = ARCHITECTURES[name]
    defaults = {"r": 2, "target_modules": list(architecture.targets), "init_weights": False} | architecture.options
    return MoraConfig(**defaults | {"task_type": architecture.task_type} | options)


def adapted(name: str, dtype: torch.dtype = torch.float32, seed: int = 1, **options) -> torch.nn.Module:
    """The architecture with one adapter, `"default"`, whose weights are random."""
    base = ARCHITECTURES[name].build(dtype)
    torch.manual_seed(seed)
    return get_peft_model(base, mora_config(name, **options)).eval()


def add(model: torch.nn.Module, adapter: str, name: str, seed: int = 2, **options) -> None:
    """One more adapter with random weights."""
    torch.manual_seed(seed)
    model.add_adapter(adapter, mora_config(name, **options))
    model.eval()


def mora_layers(model: torch.nn.Module) -> dict[str, MoraLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MoraLayer)}


def base_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.get_base_weight().detach().clone() for name, layer in mora_layers(model).items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
