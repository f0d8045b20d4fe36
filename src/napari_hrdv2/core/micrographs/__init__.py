"""Micrographs drawn by chance, with the truth about them and a person's strokes."""

from __future__ import annotations

from .compose import Micrograph, random_micrograph
from .scribbles import draw_scribbles

__all__ = ["Micrograph", "draw_scribbles", "random_micrograph"]
