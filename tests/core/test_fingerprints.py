"""An image is known again by its pixels alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from napari_hrdv2.core import fingerprints as module
from napari_hrdv2.core.fingerprints import image_fingerprint
from saved_projects import grey


def test_it_is_the_hash_of_type_shape_and_bytes():
    image = grey((7, 11), "u2")
    plain = hashlib.blake2b(b"<u2 (7, 11)" + image.tobytes(), digest_size=16)
    assert image_fingerprint(image) == plain.hexdigest()


@pytest.mark.parametrize(
    "view",
    [
        np.asfortranarray,
        lambda image: np.repeat(image, 2, axis=1)[:, ::2],
        lambda image: image.astype(">u2"),
        lambda image: image.tolist() and np.array(image.tolist(), "u2"),
    ],
    ids=["columns first", "a view", "other byte order", "a copy"],
)
def test_the_way_it_lies_in_memory_is_all_one(view):
    image = grey((7, 11), "u2")
    assert image_fingerprint(view(image)) == image_fingerprint(image)


@pytest.mark.parametrize(
    "other",
    [
        grey((7, 11), "u2") + np.eye(7, 11, dtype="u2"),
        grey((7, 11), "u2").astype("i2"),
        grey((7, 11), "u2").reshape(11, 7),
        grey((7, 11), "u2")[:, :, None],
        np.zeros((0, 11), "u2"),
        np.array(3),
    ],
    ids=["pixels", "type", "shape", "axes", "empty", "one number"],
)
def test_other_images_are_told_apart(other):
    assert image_fingerprint(other) != image_fingerprint(grey((7, 11), "u2"))


@pytest.mark.parametrize("shape", [(101, 7), (3, 7, 101), (7, 101, 3)])
def test_blocks_cover_every_pixel(monkeypatch, shape):
    image = grey(shape, "f4")
    whole = image_fingerprint(image)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 100)
    assert image_fingerprint(image) == whole


@pytest.mark.parametrize("shape", [(100, 7), (3, 7, 100)])
def test_of_large_images_rows_of_the_longest_axis_count(monkeypatch, shape):
    image = grey(shape)
    monkeypatch.setattr(module, "_WHOLE_BYTES", image.nbytes // 4)
    seen = image_fingerprint(image)
    axis = image.ndim - 1 if image.ndim == 3 else 0
    changed = image.copy()
    np.moveaxis(changed, axis, 0)[40] ^= 1
    assert image_fingerprint(changed) != seen
    skipped = image.copy()
    np.moveaxis(skipped, axis, 0)[41] ^= 1
    assert image_fingerprint(skipped) == seen
