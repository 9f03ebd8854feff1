"""What holds of the plugin without an engine: the versions that it takes, and sentences that cross processes."""

import pytest

from mora_peft.errors import UserError
from mora_peft.serving.plugin import check_version


@pytest.mark.parametrize("found", ["0.32.0", "0.32.1", "0.32.5.dev3+gabc.cpu"])
def test_known_versions(found):
    check_version(found)


@pytest.mark.parametrize("found", ["0.31.9", "0.33.0", "0.33.0rc1", "1.32.0", "dev"])
def test_other_versions_stop_the_server(found):
    with pytest.raises(UserError, match=rf"vllm>=0\.32,<0\.33, but found vLLM {found}"):
        check_version(found)


def test_sentence_survives_what_vllm_puts_around_it():
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from mora_peft.serving.engine.refusals import marked, sentence_in

    sentence = "M of q_proj has shape [3, 4]: give an adapter of this base model."
    around = f"Call to add_lora method failed: Worker failed with error '{marked(UserError(sentence))}', please check"
    assert sentence_in(around) == sentence
    assert sentence_in("Call to add_lora method failed: out of memory") is None


def test_options_that_go_round_the_layers_are_refused(monkeypatch):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from types import SimpleNamespace

    from vllm.config.lora import LoRAConfig
    from vllm.lora.model_manager import LoRAModelManager

    from mora_peft.serving.plugin import register

    register()
    manager = SimpleNamespace(lora_config=LoRAConfig(fully_sharded_loras=True))
    with pytest.raises(UserError, match="--fully-sharded-loras"):
        LoRAModelManager._create_lora_modules(manager)
    monkeypatch.setenv("VLLM_LORA_ENABLE_DUAL_STREAM", "1")
    with pytest.raises(UserError, match="VLLM_LORA_ENABLE_DUAL_STREAM"):
        LoRAModelManager._create_lora_modules(SimpleNamespace(lora_config=SimpleNamespace(fully_sharded_loras=False)))


def test_adapters_that_have_a_slot_come_first():
    """So that none of a step is dropped for another of the same step; then by number, the same in every process."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from types import SimpleNamespace

    from vllm.lora.request import LoRARequest
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

    from mora_peft.serving.plugin import register

    register()
    asked = []
    manager = SimpleNamespace(
        _active_adapters={5: None, 3: None},
        _registered_adapters=dict.fromkeys(range(1, 7)),
        get_adapter=lambda number: None,
        activate_adapter=asked.append,
    )
    requests = {LoRARequest(f"{number}", number, "/adapter") for number in range(1, 7)}
    LRUCacheWorkerLoRAManager._apply_adapters(SimpleNamespace(_adapter_manager=manager), requests)
    assert asked == [3, 5, 1, 2, 4, 6]
