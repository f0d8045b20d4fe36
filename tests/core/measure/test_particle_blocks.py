"""The table of particles over blocks, against that of the whole image in memory."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.measure import particle_table
from napari_hrdv2.core.measure.particle_blocks import block_particle_table
from napari_hrdv2.core.postprocess.instances import instances
from napari_hrdv2.files.label_store import grid


def labels_of(shape: tuple[int, int], coarse: int) -> np.ndarray:
    random = np.random.default_rng(coarse)
    size = tuple(-(-n // coarse) for n in shape)
    small = random.choice(3, size, p=(0.1, 0.5, 0.4)).astype(np.uint8)
    return np.kron(small, np.ones((coarse, coarse), np.uint8))[: shape[0], : shape[1]]


@pytest.mark.parametrize("shape", [(61, 83), (64, 32), (5, 200), (1, 1), (1, 40)])
@pytest.mark.parametrize("side", [1, 7, 300])
@pytest.mark.parametrize("is_cut", [False, True])
def test_rows_are_those_in_memory(
    shape: tuple[int, int], side: int, is_cut: bool
) -> None:
    if side == 1 and shape[0] > 5:
        side = 2
    exclusion = np.zeros(shape, bool) if is_cut else None
    if exclusion is not None:
        exclusion[shape[0] // 3 : 15, 9:30] = True
    for labels in (labels_of(shape, 1), labels_of(shape, 5), np.full(shape, 2)):
        about = {"pixel_size": ((0.5, 0.2), "µm"), "exclusion": exclusion}
        whole = instances(labels, 2, exclusion=exclusion)
        wanted = particle_table(whole, **about)
        blocks = list(grid(shape, side))
        found = block_particle_table(labels.__getitem__, blocks, 2, **about)
        assert (found.headers, len(found)) == (wanted.headers, len(wanted))
        for name, values in wanted.columns.items():
            np.testing.assert_allclose(found.columns[name], values, 1e-9, 1e-9, name)


def test_a_class_that_does_not_occur_has_no_rows() -> None:
    labels = labels_of((20, 30), 4)
    blocks = list(grid(labels.shape, 8))
    assert len(block_particle_table(labels.__getitem__, blocks, 7)) == 0


def test_it_can_be_cancelled() -> None:
    def stop() -> None:
        raise Cancelled

    labels = labels_of((20, 30), 4)
    with pytest.raises(Cancelled):
        blocks = list(grid(labels.shape, 8))
        block_particle_table(labels.__getitem__, blocks, 2, tick=stop)
