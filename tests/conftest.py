"""What all tests share: without a display, those that need a window are skipped."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

WINDOW_FIXTURES = {"qapp", "qtbot", "make_napari_viewer", "make_napari_viewer_proxy"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY"):
        return
    skip = pytest.mark.skip(reason="needs a display; xvfb-run gives one")
    for item in items:
        if WINDOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Take what was imported out of every later collection of garbage.

    Each window is looked for leaks with whole collections, and torch, napari and the
    tests themselves are a million objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def root() -> Path:
    """The top of the repository."""
    return Path(__file__).parents[1]
