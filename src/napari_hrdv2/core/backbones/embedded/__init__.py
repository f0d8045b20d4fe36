"""The backbone that the package brings along: learned features without a download."""

from napari_hrdv2.core.backbones.embedded.backbone import EmbeddedBackbone

__all__ = ["EmbeddedBackbone"]
