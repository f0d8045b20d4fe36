"""Savers that are killed: nothing is lost, and nothing left is taken for data."""

import os

import pytest

from saved_projects import killed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize(
    "kind", ["batch", "classifier", "segmentation", "stream", "zarr"]
)
def test_killed_at_a_few_moments_every_saver_leaves_what_was_saved(kind) -> None:
    # Projects and autosaves are killed at thirty moments in their own tests.
    found = killed(kind, 3)
    assert found["losses"] == []
    assert found["strays"] == []
    assert found["kills"] == 3
