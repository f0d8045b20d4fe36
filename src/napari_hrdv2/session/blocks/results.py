"""A result in blocks: those that are in view are segmented, and mapped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import with_missing
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import blank_labels
from napari_hrdv2.core.features.blocks import BlockFeatures
from napari_hrdv2.session.snapshots import (
    Blocks,
    ImageSnapshot,
    Preview,
    Result,
    Window,
)
from napari_hrdv2.session.tasks import ShouldStop, TaskContext

WHOLE: Window = (slice(None), slice(None))
AT_ONCE = 2**22  # pixels; a scribble is answered when so many are segmented


@dataclass(frozen=True, eq=False)
class BlockValues:
    """Labels or a map of an image in blocks, (H, W), and how to `read` more.

    `done` has the blocks that are there, by their corners, of `total`.
    """

    values: NDArray[Any]
    done: dict[tuple[int, int], Any]
    read: Callable[[Window, ShouldStop], NDArray[Any]]
    total: int = 0


@dataclass(frozen=True, eq=False)
class BlockRequest:
    """Blocks that are to be segmented or mapped, each part a partial answer."""

    snapshot: ImageSnapshot
    windows: tuple[Window, ...]
    wanted: tuple[BlockValues, ...]

    def __call__(self, context: TaskContext) -> BlockRequest:
        """Read one block after the other."""
        features, stop = self.snapshot.features, context.should_stop
        total, steps = len(self.windows), 1000
        for number, window in enumerate(self.windows):

            def progress(done: int, of: int, number: int = number) -> None:
                at = steps * number + steps * done // max(of, 1)
                context.progress("Segmenting", at, steps * total)

            context.progress("Segmenting", steps * number, steps * total)
            context.stop_if_cancelled()
            with features.reporting(progress, stop):
                for one in self.wanted:
                    if corner_of(window) not in one.done:
                        values = one.read(window, stop)
                        context.partial(
                            Preview(self.snapshot.key, window, values, of=one.values)
                        )
        return self


def begun(
    snapshot: ImageSnapshot,
    classifier: PixelClassifier,
    fingerprint: bytes,
    visible: Window | None,
    context: TaskContext,
) -> Result:
    """Return a result of what is in view and has features already, if not too much."""
    features: BlockFeatures = snapshot.features
    kind = np.min_scalar_type(int(classifier.classes.max()))
    labels = blank_labels(features.shape[1:], kind)
    blocks = Blocks(sum(1 for _ in features.blocks()))
    result = Result(labels, {}, fingerprint, classifier=classifier, blocks=blocks)
    values = block_labels(snapshot, result)
    for window in first_windows(features, values, visible):
        part = values.read(window, context.should_stop)
        if window is visible:
            labels[window] = part
        else:
            done = Preview(snapshot.key, window, part, of=labels)
            result = take(result, done) or result
    return result


def block_labels(snapshot: ImageSnapshot, result: Result) -> BlockValues:
    """Return the labels of a result in blocks, and how to predict more."""
    classifier, blocks, features = result.classifier, result.blocks, snapshot.features
    assert blocks is not None
    assert classifier is not None

    def read(window: Window, stop: ShouldStop) -> NDArray[Any]:
        labels = classifier.predict(features, region=window, should_stop=stop)
        return without_left_out(labels, snapshot, window)

    return BlockValues(result.labels, blocks.done, read)


def without_left_out(
    values: NDArray[Any], snapshot: ImageSnapshot, window: Window
) -> NDArray[Any]:
    """Return values of a window, now 0 where it is excluded or has no values."""
    mask = None if snapshot.exclusion is None else snapshot.exclusion[window]
    if np.dtype(snapshot.image.dtype).kind == "f":
        mask = with_missing(mask, snapshot.image[window])
    if mask is not None:
        values[mask] = 0
    return values


def first_windows(
    features: BlockFeatures, values: BlockValues, visible: Window | None
) -> list[Window]:
    """Return what is in view and has features: all of it, if not too much, or blocks.

    Where that is all, it is read as seen, and its blocks follow.
    """
    size = math.prod(side.stop - side.start for side in visible or ())
    if visible is not None and size <= AT_ONCE and features.is_kept(visible):
        return [visible]
    missing = _missing(features, [values], visible)
    kept = [window for window in missing if features.is_kept(window)]
    return kept[: max(AT_ONCE // features.axes[0].side ** 2, 1)]


def block_request(
    snapshot: ImageSnapshot, wanted: Sequence[BlockValues], visible: Window | None
) -> tuple[BlockRequest | None, bool]:
    """Return the request for those blocks in view that labels or a map lack.

    And whether blocks in view are left out, because more are missing than the memory
    holds: computed whenever one looks at them, they would push each other out.
    """
    features = snapshot.features
    windows = _missing(features, wanted, visible)
    is_far = len(windows) > features.most_kept
    if is_far:
        windows = [window for window in windows if features.is_kept(window)]
    filled = BlockRequest(snapshot, tuple(windows), tuple(wanted))
    return filled if windows else None, is_far


def take(result: Result, part: Preview) -> Result | None:
    """Write a block into its result; return that, whole at last, or None."""
    blocks, labels = result.blocks, part.labels
    if part.of is not result.labels or blocks is None:
        return None
    result.labels[part.window] = labels
    counts = Counter(dict(enumerate(np.bincount(labels.ravel()).tolist())))
    blocks.done[corner_of(part.window)] = counts
    fractions = blocks.fractions()
    return replace(result, fractions=fractions) if fractions else result


def _missing(
    features: BlockFeatures, wanted: Sequence[BlockValues], visible: Window | None
) -> list[Window]:
    """Return blocks in view that some of `wanted` lack: kept ones, then by distance."""
    view = visible or tuple(slice(0, length) for length in features.shape[1:])
    middle = [side.start + side.stop for side in view]
    missing = [
        (tile.rows, tile.columns)
        for tile in features.blocks()
        if any((tile.rows.start, tile.columns.start) not in one.done for one in wanted)
        and tile.rows.start < view[0].stop
        and view[0].start < tile.rows.stop
        and tile.columns.start < view[1].stop
        and view[1].start < tile.columns.stop
    ]

    def rank(window: Window) -> tuple[bool, int]:
        pairs = zip(window, middle, strict=True)
        apart = sum(abs(side.start + side.stop - at) for side, at in pairs)
        return not features.is_kept(window), apart

    return sorted(missing, key=rank)


def corner_of(window: Window) -> tuple[int, int]:
    """Return the upper left corner of a block."""
    return window[0].start, window[1].start
