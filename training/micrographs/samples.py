"""Made micrographs of one kind each, with ground truth and scribbles."""

from __future__ import annotations

import numpy as np

from micrographs.compose import random_micrograph
from micrographs.kinds import KINDS
from micrographs.parts import expose, strokes
from micrographs.scribbles import draw_scribbles
from napari_hrdv2.core.samples import Sample

SMALLEST = 48
RANDOM = "random"


def make_sample(
    kind: str, shape: tuple[int, int] = (512, 512), *, seed: int = 0
) -> Sample:
    """Return a micrograph of the kind, with its true labels and some scribbles.

    Parameters
    ----------
    kind : str
        One of `sample_kinds`.
    shape : (int, int)
        Height and width in pixels, at least 48 each.
    seed : int
        The same seed gives the same sample.

    Returns
    -------
    Sample

    Examples
    --------
    >>> sample = make_sample("particles", (96, 128))
    >>> sample.image.shape, sample.class_names
    ((96, 128), ('matrix', 'particle'))
    """
    if kind not in sample_kinds():
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(sample_kinds())}")
    if len(shape) != 2 or min(shape) < SMALLEST:
        raise ValueError(
            f"shape: {tuple(shape)} is not two sizes of at least {SMALLEST} pixels"
        )
    if kind == RANDOM:
        return _random_sample((int(shape[0]), int(shape[1])), seed)
    draw, dose, class_names = KINDS[kind]
    rng = np.random.default_rng([list(KINDS).index(kind), seed])
    size = float(np.clip(min(shape) / 512, 0.4, 1.0))
    signal, labels = draw(rng, (int(shape[0]), int(shape[1])), size)
    while len(np.unique(labels)) < len(class_names):  # small images may lack one
        signal, labels = draw(rng, (int(shape[0]), int(shape[1])), size)
    image = expose(rng, signal, dose=dose)
    scribbles = np.zeros_like(labels)
    for label in range(1, len(class_names) + 1):
        drawn = strokes(rng, labels == label, count=7, length=80 * size)
        scribbles[drawn] = label
    if image.ndim == 3:
        image = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    return Sample(image, labels, scribbles, class_names, kind)


def sample_kinds() -> tuple[str, ...]:
    """Return the kinds of micrograph that `make_sample` knows."""
    return (*KINDS, RANDOM)


def _random_sample(shape: tuple[int, int], seed: int) -> Sample:
    """Another kind for each seed."""
    made = random_micrograph(seed, shape)
    rng = np.random.default_rng(seed)
    length = 80 * float(np.clip(min(shape) / 512, 0.4, 1.0))
    scribbles = draw_scribbles(rng, made.labels, 7, length=(0.4 * length, length))
    names = tuple(f"class {k}" for k in range(1, int(made.labels.max()) + 1))
    return Sample(made.image, made.labels, scribbles, names, RANDOM)
