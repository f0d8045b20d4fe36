"""Images that are read in parts, of every kind."""

from __future__ import annotations

import numpy as np

from micrographs import random_micrograph


def micrograph(height, width):
    """Return grey levels and classes of an image of any shape, darker at the left."""
    picture = random_micrograph(7, (height, width), color=False)
    return picture.image / 255 + np.linspace(0, 0.2, width), picture.labels


class Lazy:
    """An image that can only be cut, and says what was read."""

    def __init__(self, array):
        self._array, self.reads = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        self.reads.append(key)
        return self._array[key]

    def __array__(self, *_, **__):
        raise AssertionError("the whole image was asked for")


def as_uint8(image):
    low, high = image.min(), image.max()
    return ((image - low) / (high - low) * 255).astype(np.uint8)


def as_colours(image):
    return np.stack([as_uint8(image), as_uint8(-image), as_uint8(image**2)], -1)


def as_uint16(image):
    return (image * 9000 + 1000).astype(np.uint16)


def with_holes(image):
    image = image.astype(np.float32)
    image[100:130, 240:270], image[-3:, :50] = np.nan, np.inf
    return image


KINDS = {"grey": as_uint8, "RGB": as_colours, "16 bit": as_uint16, "holes": with_holes}
