"""MoRA as a PEFT tuner, in PEFT's own four-file grammar."""

from .config import MoraConfig
from .layer import MoraLayer
from .linear import MoraLinear
from .model import MoraModel
from .registration import register

register(MoraConfig, MoraModel)

__all__ = ["MoraConfig", "MoraLayer", "MoraLinear", "MoraModel"]
