"""Maps of how sure the classifier is, and of what is unlike all that was painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core import guidance as core
from napari_hrdv2.core.classifier.file import PaintedPoints
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.classifier.samples import SparseLabels, blank_labels
from napari_hrdv2.core.features.blocks import BlockFeatures
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.snapshots import ImageSnapshot, Preview, TrainingImage, Window
from napari_hrdv2.session.tasks import ShouldStop, TaskContext

from .results import WHOLE, BlockValues, corner_of, first_windows, without_left_out

UNLIKE = -1  # no class: what is unlike anything that was painted


@dataclass(frozen=True)
class GuidanceMap:
    """Uncertainty, the probability of a class, or how unlike painted each pixel is.

    Of an image in blocks, `blocks` says which are there; 0 is then where it is excluded
    or where no block is, and everything else 1 or more.
    """

    key: PlaneKey
    class_id: int | None  # whose probability; None for the uncertainty, or `UNLIKE`
    values: NDArray[np.uint8]  # (H, W), in 255ths; 0 where the image is excluded
    blocks: BlockValues | None = None
    of: Any = None  # the labels of the result that it goes with

    def put(self, part: Preview) -> bool:
        """Write a part into the map of an image in blocks; return if it is of it."""
        if self.blocks is None or part.of is not self.values:
            return False
        self.values[part.window] = part.labels
        self.blocks.done[corner_of(part.window)] = None
        return True

    def extent(self) -> str:
        """Return where it is, such as " in 3 of 36 blocks", or "" for everywhere."""
        if self.blocks is None or (done := len(self.blocks.done)) == self.blocks.total:
            return ""
        return f" in {done} of {self.blocks.total} blocks" if done else " in view"


def map_of(
    image: ImageSnapshot,
    classifier: PixelClassifier,
    class_id: int | None,
    painted: list[TrainingImage],
    visible: Window | None,
    context: TaskContext,
) -> GuidanceMap:
    """Return a map: of an image in blocks, of what is in view and has features."""
    features, points = image.features, classifier.painted
    least = int(isinstance(features, BlockFeatures))  # 0 is where no block is
    if class_id == UNLIKE and painted:
        points = points_of(painted, image)

    def read(window: Window, stop: ShouldStop) -> NDArray[np.uint8]:
        about: Any = {"region": window, "should_stop": stop}
        if class_id is None:
            values = core.uncertainty_of(classifier, features, **about)
        elif class_id == UNLIKE and points is not None:
            values = core.unlikeness_to(points, features, **about)
        else:
            values = core.probability_of(classifier, features, class_id, **about)
        return without_left_out(np.maximum(values, least), image, window)

    if not isinstance(features, BlockFeatures):
        return GuidanceMap(image.key, class_id, read(WHOLE, context.should_stop))
    values, of = blank_labels(features.shape[1:]), image.result and image.result.labels
    blocks = BlockValues(values, {}, read, sum(1 for _ in features.blocks()))
    found = GuidanceMap(image.key, class_id, values, blocks, of)
    for window in first_windows(features, blocks, visible):
        part = read(window, context.should_stop)
        found.put(Preview(image.key, window, part, of=values))
        if window is visible:
            blocks.done.clear()  # it is no block
    return found


def points_of(
    painted: list[TrainingImage], image: ImageSnapshot | None = None
) -> PaintedPoints:
    """Return what was painted on images; another one may join their background."""
    given: list[Any] = [(one.features, one.labels, one.exclusion) for one in painted]
    if image is not None and all(one.features is not image.features for one in painted):
        empty = np.empty(0, np.int64)
        nothing = SparseLabels(image.features.shape[1:], empty, empty)
        given.append((image.features, nothing, image.exclusion))
    features, labels, exclusion = zip(*given, strict=True)
    return core.painted_points(features, labels, exclusion)
