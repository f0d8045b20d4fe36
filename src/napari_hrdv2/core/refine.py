"""The former address of `core.postprocess.refinement`: scripts of 0.1.0 name it."""

from __future__ import annotations

from typing import Any

from .postprocess.refinement import Refinement
from .postprocess.refinement import refine as _refine

__all__ = ["Refinement", "refine"]


def refine(*arguments: Any, excluded: Any = None, **options: Any) -> Any:
    """Return `postprocess.refinement.refine` with its former argument `excluded`."""
    return _refine(*arguments, exclusion=excluded, **options)
