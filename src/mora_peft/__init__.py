"""MoRA (Jiang et al. 2024, arXiv 2405.12130) for PEFT. Importing this package registers the method."""

from .tuner import MoraConfig, MoraModel

__version__ = "0.1.0"
__all__ = ["MoraConfig", "MoraModel", "__version__"]
