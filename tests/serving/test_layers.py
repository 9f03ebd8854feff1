"""One of vLLM's linear layers with slots, without an engine: what a compiler makes of it."""

import pytest
import torch

from mora_peft.operators import make_operator


def test_compiled_layer_is_one_operation(environment, tmp_path):
    """The compiled graph sees adapters that come later, and gives what the layer gives without a compiler."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.config.lora import LoRAConfig
    from vllm.distributed import (
        cleanup_dist_env_and_memory,
        ensure_model_parallel_initialized,
        init_distributed_environment,
    )
    from vllm.forward_context import set_forward_context
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper import get_punica_wrapper
    from vllm.lora.utils import from_layer
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear

    from mora_peft.serving.engine.layers import Pair, WithSlots
    from mora_peft.serving.plugin import register

    register()
    k, widths = 24, [20, 12]
    config, loras = VllmConfig(), LoRAConfig(max_loras=2, max_lora_rank=8, lora_dtype=torch.float32)
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"file://{tmp_path}/store", 0, backend="gloo")
        ensure_model_parallel_initialized(1, 1)
        base = MergedColumnParallelLinear(k, widths, bias=False, params_dtype=torch.float32, prefix="gate_up")
        W = base.weight.data.normal_().clone()
        base.quant_method.process_weights_after_loading(base)
        layer = from_layer(base, 2, loras, ["gate_proj", "up_proj"])
        assert isinstance(layer, WithSlots)
        wrapper = get_punica_wrapper(16, max_batches=4, device=torch.device("cpu"), lora_config=loras)
        layer.set_mapping(wrapper)
        x = torch.randn(5, k)
        with set_forward_context(None, config):
            graph = torch.compile(lambda x: layer(x)[0], fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(graph(x), x @ W.T)
            operator = make_operator("sharing", k=k, d=12, r_hat=8)
            M = torch.randn(8, 8)
            layer.set_lora(1, [None, M], [None, Pair(operator)])
            wrapper.update_metadata(LoRAMapping((0, 7, 7, 0, 7), (0, 7, 0, 7), is_prefill=True), [3, 7], 3, 64)
            expected = x @ W.T
            expected[[1, 2, 4], 20:] += operator(x, M)[[1, 2, 4]]
            torch.testing.assert_close(graph(x), expected)
            torch.testing.assert_close(layer(x)[0], expected)
    cleanup_dist_env_and_memory()
