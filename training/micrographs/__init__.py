"""Made micrographs with ground truth and scribbles, to train and to measure with."""

from __future__ import annotations

from micrographs.compose import Micrograph, random_micrograph
from micrographs.frames import framed
from micrographs.samples import make_sample, sample_kinds
from micrographs.scribbles import draw_scribbles
from micrographs.series import random_series

__all__ = [
    "Micrograph",
    "draw_scribbles",
    "framed",
    "make_sample",
    "random_micrograph",
    "random_series",
    "sample_kinds",
]
