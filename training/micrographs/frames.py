"""What is in a picture and not of the sample: data bars, captions, dead borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from micrographs.compose import Micrograph, is_complete
from micrographs.fields import Rng, Shape, plane_grid
from micrographs.layouts import chance

Marks = tuple[NDArray[np.bool_], NDArray[np.bool_]]  # unlabelled; ink on it


def framed(rng: Rng, picture: Micrograph) -> Micrograph:
    """Return the picture with a data bar, captions or dead borders, unlabelled (0).

    One that would lose a class stays as it is. Of one state of `rng` they are alike,
    as in the pictures of one instrument.
    """
    draw: Callable[[Rng, Shape], Marks] = (_data_bar, _captions, _dead_border)[
        int(rng.integers(3))
    ]
    height, width = picture.labels.shape
    unlabelled, ink = draw(rng, (height, width))
    labels = np.where(unlabelled, 0, picture.labels).astype(np.uint8)
    if not is_complete(labels[labels > 0] - 1, int(picture.labels.max())):
        return picture
    ground, text = (int(x) for x in rng.permutation([rng.integers(40), 255]))
    image = picture.image.copy()
    image[unlabelled], image[ink] = ground, text
    return replace(picture, image=image, labels=labels)


def _data_bar(rng: Rng, shape: Shape) -> Marks:
    """A bar along the bottom, or the top, with text and a scale."""
    high = max(round(shape[0] * rng.uniform(0.05, 0.14)), 8)
    unlabelled, ink = np.zeros(shape, bool), np.zeros(shape, bool)
    first = 0 if chance(rng, 0.2) else shape[0] - high
    unlabelled[first : first + high] = True
    size = int(rng.uniform(0.35, 0.8) * high)
    above = first + (high - size) // 2
    _write(rng, ink, above, int(rng.integers(2, 12)), size, int(rng.integers(4, 16)))
    if chance(rng, 0.7):
        start = int(shape[1] * rng.uniform(0.6, 0.8))
        ink[above + size // 2 :, start:][: max(size // 6, 1), : shape[1] // 7] = True
    return unlabelled, ink & unlabelled


def _captions(rng: Rng, shape: Shape) -> Marks:
    """Text right on the picture."""
    ink = np.zeros(shape, bool)
    for _ in range(rng.integers(1, 4)):
        size = max(int(shape[0] * rng.uniform(0.03, 0.09)), 5)
        row = int(rng.choice([0.03, 0.87]) * shape[0])
        column = int(rng.choice([0.03, 0.6]) * shape[1])
        _write(rng, ink, row, column, size, int(rng.integers(2, 9)))
    return ink, ink


def _write(
    rng: Rng, ink: NDArray[np.bool_], row: int, column: int, size: int, letters: int
) -> None:
    """Draw signs like letters, 5 by 3 strokes each."""
    stroke = max(size // 5, 1)
    for _ in range(letters):
        sign = np.kron(rng.random((5, 3)) < 0.6, np.ones((stroke, stroke))) > 0
        place = ink[row : row + sign.shape[0], column : column + sign.shape[1]]
        place |= sign[: place.shape[0], : place.shape[1]]
        column += 4 * stroke


def _dead_border(rng: Rng, shape: Shape) -> Marks:
    """The corners about a turned picture, or about a round field of view."""
    rows, columns = plane_grid(shape)
    down, right = rows / shape[0] - 0.5, columns / shape[1] - 0.5
    if chance(rng, 0.4):
        dead = down**2 + right**2 > rng.uniform(0.45, 0.62) ** 2
    else:
        angle, reach = np.float32(rng.uniform(-0.3, 0.3)), rng.uniform(0.42, 0.5, 2)
        turned = down * np.cos(angle) + right * np.sin(angle)
        across = right * np.cos(angle) - down * np.sin(angle)
        dead = (np.abs(turned) > reach[0]) | (np.abs(across) > reach[1])
    return dead, np.zeros(shape, bool)
