"""The former address of `core.postprocess.refinement`: exported scripts name it."""

from napari_hrdv2.core.postprocess.refinement import Refinement, clean, refine

__all__ = ["Refinement", "clean", "refine"]
