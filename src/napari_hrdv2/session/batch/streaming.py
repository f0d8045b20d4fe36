"""Segmenting an image that need not fit into memory: block by block, into a Zarr.

Window and command line share it. A run that is ended, however that came, is gone on
with by the next one that would do the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.checks import grey_if_equal, has_colors, with_missing
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.devices import available_memory, choose_device
from napari_hrdv2.core.errors import stop_if
from napari_hrdv2.core.features.base import Features
from napari_hrdv2.core.features.blocks import BlockFeatures
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.levels import Levels, windows_of
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.features.resampled import resampling_factors, resized_shape
from napari_hrdv2.core.features.volumes import (
    VolumeFeatures,
    any_features,
    check_context,
)
from napari_hrdv2.core.measure import FractionCounter, Fractions
from napari_hrdv2.core.postprocess.blocks import clean_blocks
from napari_hrdv2.core.postprocess.refinement import (
    Refinement,
    without_small_holes,
    without_small_objects,
)
from napari_hrdv2.core.postprocess.smoothing_blocks import smooth_blocks
from napari_hrdv2.core.series.reading import Reading, read_image
from napari_hrdv2.files import ImageFile
from napari_hrdv2.files.label_store import (
    LabelStore,
    Place,
    Window,
    check_disk,
    check_store,
    put_block,
    store_fingerprint,
)
from napari_hrdv2.files.labels import LabelClasses
from napari_hrdv2.session.features import FeatureSource
from napari_hrdv2.session.tasks import TaskContext

Spread = Callable[[Place, list[Window]], Iterator[tuple[Window, int]]]

BLOCK = 1024  # pixels along each side
COUNTED = "counted in the volume; there is no error bar"
WHOLE_BYTES = 20  # for each voxel, of what is cleaned in one piece
PARTICLE_BYTES = 100  # for each voxel, of what is numbered and measured
WINDOWS = 6  # along each side of an image, that its grey levels are matched in


@dataclass(frozen=True)
class Streamed:
    """A segmentation in an OME-Zarr, and the fractions of it."""

    path: Path
    fractions: Fractions
    was_there: int  # blocks that an earlier run had done
    blocks: int
    doubt: float | None = None  # see `Reading`; None where it is not known
    is_inverted: bool = False  # whether light and dark were exchanged for it

    @property
    def by_class(self) -> dict[int, float]:
        """The fraction of each class that occurs."""
        phases = self.fractions.phases
        return {one.class_id: one.fraction for one in phases if one.pixels}


def is_by_blocks(
    image: Any, options: FeatureOptions, pixel_ratio: tuple[float, float] | None = None
) -> bool:
    """Whether it is a volume, or features do not fit into memory, resampled or not.

    Raises
    ------
    MemoryError
        If they do not, and cannot be computed by blocks either.
    """
    is_volume, shape = hasattr(image, "volume_shape"), image.shape
    seen = shape, resized_shape(shape, resampling_factors(pixel_ratio))
    costs = [] if is_volume else [estimate_cost(each, options) for each in seen]
    if all(cost.fits for cost in costs):
        return is_volume
    cost = max(costs, key=lambda cost: cost.peak_bytes)
    try:
        fits = estimate_cost(shape, options, block=BLOCK).fits
    except ValueError as error:
        cost, fits = cost.refused_in_blocks(error), False
    if not fits:
        raise MemoryError(f"image: {cost.refusal()}")
    return True


def stream_image(
    file: ImageFile,
    classifier: PixelClassifier,
    source: FeatureSource,
    target: Path,
    context: TaskContext = TaskContext(),  # noqa: B008 - frozen
    pixel_ratio: tuple[float, float] | None = None,
    **about: Any,
) -> Streamed:
    """Segment an image in a file by its own features; the rest as `stream_labels`."""
    check_store(target)
    mask = about.get("exclusion")
    file, read = open_blocks(file, classifier, source, context, mask, pixel_ratio)
    given = read.features, read.classifier
    streamed = stream_labels(file, *given, target, context, **about)
    return replace(streamed, doubt=read.doubt, is_inverted=read.is_inverted)


def open_blocks(
    file: ImageFile,
    classifier: PixelClassifier,
    source: FeatureSource,
    context: TaskContext,
    mask: NDArray[np.bool_] | None,
    ratio: tuple[float, float] | None = None,
) -> tuple[ImageFile, Reading]:
    """Return an image as was trained on, and as the classifier sees it."""
    image = source.as_trained(file.data, classifier, lazily_grey)
    read = read_by_blocks(image, source, classifier, context, mask, ratio)
    return replace(file, data=image), read


def stream_labels(
    file: ImageFile,
    features: Features,
    classifier: PixelClassifier,
    target: Path,
    context: TaskContext = TaskContext(),  # noqa: B008 - frozen
    *,
    exclusion: NDArray[np.bool_] | None = None,
    refinement: Refinement | None = None,
    colors: Mapping[int, str] | None = None,
    spread: Spread | None = None,
) -> Streamed:
    """Segment an image block by block into the OME-Zarr `target`.

    Parameters
    ----------
    file : ImageFile
        Its data may stay in the file.
    features : Features
        Of that image; those of `block_features` need not fit into memory.
    classifier : PixelClassifier
    target : Path
        Appears when all is done; see `LabelStore` for what is there before.
    exclusion : (H, W) bool array, optional
    refinement : Refinement, optional
        The labels are those in memory; of a volume, in three dimensions. To smooth,
        probabilities are written first.
    colors : mapping of int to str, optional
        Of the classes.
    spread : callable, optional
        Has `segment_block` called elsewhere, and yields windows with checksums.

    Raises
    ------
    Cancelled
        If the context says so; what is done is gone on with by the next call.
    """
    refinement = refinement or Refinement()
    fingerprint = store_fingerprint(
        file, features, classifier, exclusion, refinement, colors
    )
    is_volume = hasattr(file.data, "volume_shape")
    check_volume(file.data, refinement, classes=len(classifier.classes))
    classes = LabelClasses(dict(classifier.class_names), dict(colors or {}))
    image, ids = file.data, [int(one) for one in classifier.classes]
    smooths, stop = refinement.smooths and len(ids) > 1, context.should_stop
    store = LabelStore(
        target,
        getattr(image, "volume_shape", features.shape[1:]),
        max(ids),
        fingerprint,
        block=getattr(features, "block", BLOCK),
        is_refined=not refinement.is_off,
        planes=len(ids) if smooths else 0,
    )
    if isinstance(features, VolumeFeatures):
        features.folder = store.folder / "slices"
        values = (len(features.axes) - 1) * (len(ids) - 1)
        if not (store.is_finished or features.folder.exists()):
            needed = 4 * values * math.prod(store.shape)
            check_disk(store.folder, needed, "slices across the planes", "planes z")
    todo = [window for window in store.blocks if not store.is_done(window)]
    known = len(store.blocks) - len(todo)

    def excluded(window: Window) -> NDArray[np.bool_] | None:
        return None if exclusion is None else exclusion[window]

    def here(place: Place, windows: list[Window]) -> Iterator[tuple[Window, int]]:
        for window in windows:
            context.stop_if_cancelled()
            given = image, features, classifier, window, excluded(window)
            yield window, segment_block(place, *given, stop)

    context.progress(f"Segmenting {target.stem}", known, len(store.blocks))
    for number, done in enumerate((spread or here)(store.place, todo), start=known + 1):
        store.note(*done)
        context.progress(f"Segmenting {target.stem}", number, len(store.blocks))
    context.progress(f"Segmenting {target.stem}", len(store.blocks), len(store.blocks))
    if is_volume and not (refinement.is_off or store.is_finished):
        _clean_volume(store, refinement, context)
    elif not (refinement.is_off or store.is_finished):
        if smooths:
            if isinstance(features, BlockFeatures) and not spread:
                features.drop()  # what follows needs the memory
            guide = image
            if any(part.channel for part in classifier.part_options):  # as in memory
                is_lazy = hasattr(image, "first_band")
                guide = image.first_band() if is_lazy else image[..., 0]
            smooth_blocks(
                guide,
                lambda window: _left_out(image, excluded(window), window),
                store.predicted,
                store.write,
                store.blocks,
                classifier.classes,
                refinement,
                partial(stop_if, stop, "refining"),
            )
        clean_blocks(
            store.read if smooths else store.predicted,
            store.write,
            store.read,
            store.blocks,
            min_object=refinement.min_object,
            fill_holes=refinement.fill_holes,
            should_stop=stop,
        )
    counter = FractionCounter(features.shape[1:], ids)
    for window in store.blocks:
        context.stop_if_cancelled()
        counter.add(store.read(window), window)
    depth = image.depth_in(file.unit) if is_volume else None
    store.finish(classes, file.pixel_size, file.unit, depth)
    found = counter.fractions()
    if is_volume:
        phases = tuple(replace(one, error=None) for one in found.phases)
        found = replace(found, phases=phases, method=COUNTED)
    return Streamed(target, found, known, len(store.blocks))


def check_volume(
    image: Any, refinement: Refinement | None, particles: bool = False, classes: int = 2
) -> None:
    """Raise ValueError or MemoryError for what cannot be done, if it is a volume."""
    refinement = refinement or Refinement()
    if not hasattr(image, "volume_shape"):
        return
    check_context(image, classes - 1)
    if refinement.is_off and not particles:
        return
    if refinement.smooths:
        raise ValueError(
            f"smoothing: {refinement.smoothing} is not for volumes; choose none, or "
            "min_object and fill_holes"
        )
    voxels = math.prod(image.volume_shape)
    needed = (PARTICLE_BYTES if particles else WHOLE_BYTES) * voxels
    if needed > (free := available_memory(choose_device("cpu"))):
        raise MemoryError(
            f"min_object, fill_holes, particles: of this volume they need "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; leave them out"
        )


def _clean_volume(
    store: LabelStore, refinement: Refinement, context: TaskContext
) -> None:
    """Write the labels of a volume without small objects and holes."""
    size = math.prod(store.shape[:2]), store.shape[2]
    whole = np.empty(size, store.predicted(store.blocks[0]).dtype)
    for window in store.blocks:
        whole[window] = store.predicted(window)
    volume = whole.reshape(store.shape)
    if refinement.min_object > 1:
        volume = without_small_objects(volume, refinement.min_object)
    if (largest := refinement.fill_holes) > 1:
        volume = without_small_holes(volume, largest, context.stop_if_cancelled)
    for window in store.blocks:
        store.write(window, volume.reshape(size)[window])


def read_by_blocks(
    image: Any,
    source: FeatureSource,
    classifier: PixelClassifier,
    context: TaskContext,
    exclusion: NDArray[np.bool_] | None = None,
    pixel_ratio: tuple[float, float] | None = None,
) -> Reading:
    """Return an image as the classifier sees it.

    As `read_image` does in memory; grey levels are looked at in windows from all over.
    Of a volume that keeps its own grey levels, nothing is known of doubt.
    """

    def compute(part: Any, levels: Levels | None) -> Features:
        return any_features(
            part,
            source.backbone,
            pixel_ratio,
            progress=partial(context.progress, "Reading") if part is image else None,
            should_stop=context.should_stop,
            levels=levels or source.options.levels,
            **source.options.choices,
        )

    if classifier.normalisation.kind == "image" and hasattr(image, "volume_shape"):
        return Reading(compute(image, None), classifier)
    return read_image(
        classifier,
        image,
        compute,
        exclusion=exclusion,
        windows=windows_of(image.shape, WINDOWS),
        should_stop=context.should_stop,
    )


def lazily_grey(image: Any) -> Any:
    """Return the grey levels of an RGB(A) image without colours, else the image.

    As `grey_if_equal`, with one band of rows after the other in memory.
    """
    if image.ndim != 3 or not hasattr(image, "levels"):
        return grey_if_equal(image)
    step = getattr(image, "plane_shape", (BLOCK,))[0]
    for start in range(0, image.shape[0], step):
        rows = image[start : start + step]
        if has_colors(rows):
            return image
    return image.first_band()


def segment_block(
    place: Place,
    image: Any,
    features: Features,
    classifier: PixelClassifier,
    window: Window,
    excluded: NDArray[np.bool_] | None,
    should_stop: Callable[[], bool] | None = None,
) -> int:
    """Write a window's labels, 0 where there are none, or probabilities; checksum."""
    predict = (
        classifier.predict_proba if place.has_probabilities else classifier.predict
    )
    found = predict(features, region=window, should_stop=should_stop)
    mask = _left_out(image, excluded, window)
    if mask is not None and not place.has_probabilities:
        found[mask] = 0
    return put_block(place, window, found)


def _left_out(
    image: Any, excluded: NDArray[np.bool_] | None, window: Window
) -> NDArray[np.bool_] | None:
    """Return what is excluded or missing in a window, None where nothing can be."""
    is_float = image.dtype.kind == "f"
    return with_missing(excluded, image[window]) if is_float else excluded
