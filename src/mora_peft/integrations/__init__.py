"""MoRA in tools that are driven by YAML: each module is loaded by the tool that it is named after."""

from .lora_fields import mora_config

__all__ = ["mora_config"]
