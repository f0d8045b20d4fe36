"""Small projects that the tests of saving share; importable without torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.session.classes import ClassInfo
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project.format import Project, SavedImage

CLASSES = {
    1: ClassInfo("Grain boundary γ′", "#e8590c"),
    7: ClassInfo("pore", "#56b4e9"),
}


def grey(shape=(7, 11), dtype=np.uint8, seed=0):
    levels = np.random.default_rng(seed).random(shape) * 200
    return levels.astype(dtype)


def entry(key="a", strokes=3, *, image=None, **changes):
    """Return an image entry with as many labelled pixels, on a random image."""
    image = grey() if image is None else image
    shape = changes.pop("shape", image.shape[:2])
    scribbles = np.zeros(shape, np.uint8)
    scribbles.ravel()[:strokes] = 7
    given = {
        "key": PlaneKey.parse(key),
        "name": f"{key}.tif",
        "source": None,
        "plane": {},
        "shape": shape,
        "image_fingerprint": image_fingerprint(image),
        "pixel_size": (0.25, "µm"),
        "scribbles": scribbles,
        "exclusion": None,
        "image": image,
    }
    return SavedImage(**{**given, **changes})


def project(*images, **changes):
    given = {
        "classes": CLASSES,
        "options": FeatureOptions(),
        "classifier": None,
        "refinement": {},
        "current": None,
    }
    return Project(images=images, **{**given, **changes})


def written(keys):
    """Return keys by keys as files hold them."""
    return {str(theirs): str(ours) for theirs, ours in keys.items()}


def killed(kind, kills=30):
    """Kill forked savers of a kind and return what `benchmarks/kills.py` found."""
    from kills import kill  # needs torch

    with tempfile.TemporaryDirectory() as folder:
        return kill(kind, Path(folder), kills)
