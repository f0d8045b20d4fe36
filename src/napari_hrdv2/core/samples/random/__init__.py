"""Micrographs drawn by chance, with the truth about them and a person's strokes."""

from __future__ import annotations

from napari_hrdv2.core.samples.random.compose import Micrograph, random_micrograph
from napari_hrdv2.core.samples.random.scribbles import draw_scribbles

__all__ = ["Micrograph", "draw_scribbles", "random_micrograph"]
