"""Training a backbone on in one's own images, without labels, and whether it helped."""

from __future__ import annotations

from .training import Adaptation, AdaptationOptions

__all__ = ["Adaptation", "AdaptationOptions"]
