"""The made micrographs of ``training/``, for scripts that are run from elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from micrographs import draw_scribbles, make_sample, random_micrograph

__all__ = ["draw_scribbles", "make_sample", "random_micrograph"]
