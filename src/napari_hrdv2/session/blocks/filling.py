"""A result in blocks: those that are in view are segmented."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.checks import with_missing
from napari_hrdv2.core.classifier.samples import blank_labels
from napari_hrdv2.session.snapshots import Blocks, ImageSnapshot, Preview, Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.blocks import BlockFeatures
    from napari_hrdv2.session.snapshots import Window
    from napari_hrdv2.session.tasks import ShouldStop, TaskContext

AT_ONCE = 2**22  # pixels; a scribble is answered when so many are segmented


@dataclass(frozen=True, eq=False)
class Filling:
    """Blocks of a result that are to be segmented, each a partial answer."""

    snapshot: ImageSnapshot  # with the result
    windows: tuple[Window, ...]

    def __call__(self, context: TaskContext) -> Filling:
        """Segment one block after the other."""
        result, features = self.snapshot.result, self.snapshot.features
        assert result is not None
        assert result.classifier is not None
        total, steps = len(self.windows), 1000
        for number, window in enumerate(self.windows):

            def progress(done: int, of: int, number: int = number) -> None:
                at = steps * number + steps * done // max(of, 1)
                context.progress("Segmenting", at, steps * total)

            context.progress("Segmenting", steps * number, steps * total)
            context.stop_if_cancelled()
            with features.reporting(progress, context.should_stop):
                labels = _labels(
                    result.classifier, self.snapshot, window, context.should_stop
                )
            context.partial(
                Preview(self.snapshot.key, window, labels, of=result.labels)
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
    if visible is not None and _size(visible) <= AT_ONCE and features.is_kept(visible):
        part = _labels(classifier, snapshot, visible, context.should_stop)
        labels[visible] = part  # all of the blocks follow
        return result
    kept = [one for one in _missing(features, blocks, visible) if features.is_kept(one)]
    for window in kept[: max(AT_ONCE // features.axes[0].side ** 2, 1)]:
        part = _labels(classifier, snapshot, window, context.should_stop)
        result = _with(result, window, part)
    return result


def filling(
    snapshot: ImageSnapshot, visible: Window | None
) -> tuple[Filling | None, bool]:
    """Return what is missing of a result in view.

    And whether blocks in view are left out, because more are missing than the memory
    holds: computed whenever one looks at them, they would push each other out.
    """
    features, result = snapshot.features, snapshot.result
    if result is None or not result.is_partial:
        return None, False
    assert result.blocks is not None
    windows = _missing(features, result.blocks, visible)
    is_far = len(windows) > features.most_kept
    if is_far:
        windows = [window for window in windows if features.is_kept(window)]
    return Filling(snapshot, tuple(windows)) if windows else None, is_far


def take(result: Result, part: Preview) -> Result | None:
    """Write a block into its result; return that, whole at last, or None."""
    if part.of is not result.labels or result.blocks is None:
        return None
    return _with(result, part.window, part.labels)


def _with(result: Result, window: Window, labels: NDArray[Any]) -> Result:
    blocks = result.blocks
    assert blocks is not None
    result.labels[window] = labels
    counts = Counter(dict(enumerate(np.bincount(labels.ravel()).tolist())))
    blocks.done[window[0].start, window[1].start] = counts
    fractions = blocks.fractions()
    return replace(result, fractions=fractions) if fractions else result


def _missing(
    features: BlockFeatures, blocks: Blocks, visible: Window | None
) -> list[Window]:
    """Return the blocks in view that are not done: those kept, then from the middle."""
    missing = [
        (tile.rows, tile.columns)
        for tile in features.blocks()
        if (tile.rows.start, tile.columns.start) not in blocks.done
        and (visible is None or _meet(tile, visible))
    ]
    whole = slice(0, features.shape[1]), slice(0, features.shape[2])
    middle = [side.start + side.stop for side in visible or whole]

    def rank(window: Window) -> tuple[bool, int]:
        pairs = zip(window, middle, strict=True)
        apart = sum(abs(side.start + side.stop - at) for side, at in pairs)
        return not features.is_kept(window), apart

    return sorted(missing, key=rank)


def _size(window: Window) -> int:
    return math.prod(side.stop - side.start for side in window)


def _meet(one: Window, other: Window) -> bool:
    return all(
        a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True)
    )


def _labels(
    classifier: PixelClassifier,
    snapshot: ImageSnapshot,
    window: Window,
    should_stop: ShouldStop,
) -> NDArray[Any]:
    """Return the label ids of a block, 0 where it is left out or has no values."""
    labels = classifier.predict(
        snapshot.features, region=window, should_stop=should_stop
    )
    mask = None if snapshot.exclusion is None else snapshot.exclusion[window]
    if np.dtype(snapshot.image.dtype).kind == "f":
        mask = with_missing(mask, snapshot.image[window])
    if mask is not None:
        labels[mask] = 0
    return labels
