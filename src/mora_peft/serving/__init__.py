"""The vLLM plugin: MoRA adapters served beside the base model and LoRA."""
