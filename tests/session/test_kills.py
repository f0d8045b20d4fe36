"""Savers that are killed: nothing is lost, and nothing left is taken for data."""

import os

import pytest

from saved_projects import killed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_a_few_moments_every_saver_leaves_what_was_saved() -> None:
    # Projects and autosaves are killed at fifty moments in their own tests.
    kinds = ["batch", "classifier", "segmentation", "stream", "zarr"]
    found = killed(kinds, 3)
    assert sorted(found) == kinds
    for kind, result in found.items():
        assert result["losses"] == [], kind
        assert result["strays"] == [], kind
        assert result["kills"] == 3
