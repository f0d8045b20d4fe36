"""The example micrograph that the package brings along, with truth and scribbles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FILE = Path(__file__).with_name("example.npz")


@dataclass(frozen=True)
class Sample:
    """A micrograph with its ground truth."""

    image: NDArray[np.uint8]  # (H, W) or (H, W, 3)
    labels: NDArray[np.uint8]  # (H, W), the true class of each pixel, 1..K
    scribbles: NDArray[np.uint8]  # (H, W), the class of painted pixels, 0 elsewhere
    class_names: tuple[str, ...]  # that of class k is class_names[k - 1]
    kind: str  # what it shows


def example() -> Sample:
    """Return a made micrograph of steel: 512 × 512 pixels, three phases.

    >>> sample = example()
    >>> sample.image.shape, sample.class_names
    ((512, 512), ('ferrite', 'pearlite', 'bainite'))
    """
    names = ("ferrite", "pearlite", "bainite")
    with np.load(_FILE) as file:
        return Sample(file["image"], file["labels"], file["scribbles"], names, "grains")
