"""Small synthetic features that several tests share."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.features.options import PartOptions

SHAPE = (20, 30)
PART = PartOptions("dinov2-small", "abc", "identity", 1, 4)
TRUTH = np.where(np.arange(30) < 12, 3, np.where(np.arange(30) < 22, 70, 7000))
TRUTH = np.broadcast_to(TRUTH, SHAPE)


def striped_features(seed=0, options=PART, truth=TRUTH, offset=0.0):
    """Pixelwise features in which three stripes differ, with noise."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((1, *SHAPE, 4)).astype(np.float32) / 4
    for channel, label in enumerate([3, 70, 7000]):
        tokens[0, truth == label, channel] += 2
    return HighResFeatures(tokens + offset, "identity", SHAPE, 1, 1, options=options)


def strokes(*labels):
    scribbles = np.zeros(SHAPE, int)
    for label in labels:
        scribbles[4:6] = np.where(TRUTH[4:6] == label, label, scribbles[4:6])
    return scribbles


def halves(shape=(40, 60), bad=()):
    """Noise whose first channel is larger on the right; no numbers at `bad` pixels."""
    rng = np.random.default_rng(3)
    tokens = rng.standard_normal((1, *shape, 5)).astype(np.float32)
    tokens[0, :, shape[1] // 2 :, 0] += 6
    for row, column in bad:
        tokens[0, row, column] = np.nan
    return HighResFeatures(tokens, "identity", shape, 1, 1)


def dots(shape=(40, 60)):
    """A stroke of class 1 on the left and one of class 2 on the right."""
    labels = np.zeros(shape, int)
    labels[5, 3:23], labels[30, -23:-3] = 1, 2
    return labels


def two_textures(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise of one mean and deviation, finer on the left than on the right."""
    noise = np.random.default_rng(5).normal(size=(side, side))
    parts = [gaussian_filter(noise, sigma) for sigma in (3, 8)]
    parts = [128 + 40 * part / part.std() for part in parts]
    is_right = np.indices(noise.shape)[1] >= side // 2
    image = np.where(is_right, parts[1], parts[0]).clip(0, 255).astype(np.uint8)
    return image, 1 + is_right.astype(int)


def discs(fraction, seed=0, shape=(131, 118), gain=1.0, offset=0.0):
    """Return bright discs in a matrix as 8 bits, and where the discs are."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(shape, bool)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    while inside.mean() < fraction:
        y, x, radius = rng.integers(shape[0]), rng.integers(shape[1]), rng.uniform(5, 9)
        inside |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    grey = np.where(inside, 170, 90) + rng.normal(0, 8, shape)
    return np.clip(gain * grey + offset, 0, 255).astype(np.uint8), inside


def dabs(inside, seed=0, each=6):
    """Return dabs on the matrix, 1, and as many on discs, 2."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(inside.shape, np.uint8)
    for label, there in ((1, ~inside), (2, inside)):
        rows, columns = np.nonzero(there[2:-2, 2:-2])
        for i in rng.choice(len(rows), each):
            labels[rows[i] + 1 : rows[i] + 4, columns[i] + 1 : columns[i] + 4] = label
        labels[(labels == label) & ~there] = 0
    return labels


def two_phases(fraction, seed=0, shape=(67, 81), gain=1.0, offset=0.0):
    """Return an image whose left is dark and right is light, and its truth."""
    rng = np.random.default_rng(seed)
    truth = np.ones(shape, np.uint8)
    truth[:, round(shape[1] * (1 - fraction)) :] = 2
    grey = np.where(truth == 2, 170.0, 90.0) + rng.normal(0, 8, shape)
    return gain * grey + offset, truth
