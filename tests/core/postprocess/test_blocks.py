"""Objects and cleaning over blocks, against the whole image in memory."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.postprocess.blocks import BlockObjects, clean_blocks
from napari_hrdv2.core.postprocess.refinement import clean

SHAPES = ((61, 83), (64, 32), (5, 200), (1, 1), (33, 97))


def grid(shape: tuple[int, int], side: int) -> list[tuple[slice, slice]]:
    return [
        (slice(r, min(r + side, shape[0])), slice(c, min(c + side, shape[1])))
        for r in range(0, shape[0], side)
        for c in range(0, shape[1], side)
    ]


def noise(shape: tuple[int, int], seed: int, coarse: int = 1) -> np.ndarray:
    """Return labels 0 to 3 in spots of some size: 0 is rare."""
    random = np.random.default_rng(seed)
    size = tuple(-(-n // coarse) for n in shape)
    small = random.choice(4, size, p=(0.02, 0.4, 0.38, 0.2)).astype(np.uint8)
    spots = np.kron(small, np.ones((coarse, coarse), np.uint8))
    return spots[: shape[0], : shape[1]].copy()


def spiral(shape: tuple[int, int]) -> np.ndarray:
    """Return an object that crosses block borders again and again."""
    rows, columns = np.indices(shape)
    y, x = rows - shape[0] / 2, columns - shape[1] / 2
    turns = np.hypot(y, x) / 6 - np.arctan2(y, x) / (2 * np.pi)
    return (1 + (turns % 1 < 0.5)).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("side", [7, 16, 300])
def test_objects_are_those_of_the_whole(
    shape: tuple[int, int], connectivity: int, side: int
) -> None:
    for labels in (noise(shape, 1), noise(shape, 2, 3), spiral(shape)):
        blocks = grid(shape, side)
        found = BlockObjects(labels.__getitem__, blocks, connectivity)
        whole = np.zeros(shape, int)
        for index, block in enumerate(blocks):
            whole[block] = found.numbered(index)
        wanted = label(labels, connectivity=connectivity, background=0)
        pairs = np.unique(np.stack([whole.ravel(), wanted.ravel()]), axis=1)
        assert len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1]))
        assert np.array_equal(found.sizes[1:], np.bincount(whole.ravel())[1:])
        assert np.array_equal(whole == 0, wanted == 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("min_object", [0, 4, 40])
@pytest.mark.parametrize("fill_holes", [0, 9, 60])
@pytest.mark.parametrize("side", [8, 21])
def test_cleaning_is_that_of_the_whole(
    shape: tuple[int, int], min_object: int, fill_holes: int, side: int
) -> None:
    blank, one = np.zeros(shape, np.uint8), np.full(shape, 3, np.uint8)
    some = (noise(shape, 1), noise(shape, 2, 3), noise(shape, 3, 5), spiral(shape))
    for labels in (*some, blank, one):
        kept = np.zeros_like(labels)
        clean_blocks(
            lambda block, labels=labels: labels[block],
            kept.__setitem__,
            lambda block, kept=kept: kept[block].copy(),
            grid(shape, side),
            min_object=min_object,
            fill_holes=fill_holes,
        )
        assert np.array_equal(kept, clean(labels, min_object, fill_holes))


def test_cleaning_can_be_cancelled() -> None:
    labels = noise((20, 20), 1)
    with pytest.raises(Cancelled):
        clean_blocks(
            labels.__getitem__,
            labels.__setitem__,
            labels.__getitem__,
            grid((20, 20), 8),
            min_object=5,
            should_stop=lambda: True,
        )
