"""The backbone that the package brings along: learned features without a download."""

from .backbone import EmbeddedBackbone

__all__ = ["EmbeddedBackbone"]
