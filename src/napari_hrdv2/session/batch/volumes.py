"""A stack of the session as a volume, segmented into an OME-Zarr as by `segment`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.classifier.samples import SparseLabels
from napari_hrdv2.core.devices import bytes_text
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.features.volumes import context_bytes
from napari_hrdv2.core.series.training import train_series
from napari_hrdv2.files import ImageFile
from napari_hrdv2.files.label_store import check_store
from napari_hrdv2.files.units import NO_UNIT, pixel_ratio, unit_symbol
from napari_hrdv2.files.volumes import LazyVolume
from napari_hrdv2.session.features import FeatureSource
from napari_hrdv2.session.images import ImageEntry
from napari_hrdv2.session.planes import LARGE, PlaneKey
from napari_hrdv2.session.session import Session
from napari_hrdv2.session.tasks import Task, TaskContext

from .streaming import BLOCK, Streamed, check_volume, stream_image, stream_labels

NEARLY = 1.05  # times as deep as wide, which is as good as equal


def volume_request(session: Session, volume: LazyVolume, target: Path) -> Task:
    """Return the request to segment the stack of the current image into an OME-Zarr.

    By a classifier that is trained on the scribbles of all its planes, or by the loaded
    one. What is cancelled is gone on with by the next request. ValueError where two
    classes are not painted, or it cannot be refined so; others as `check_store`.
    """
    entry, options = session.current, volume_options(session)
    refinement, loaded = session.refinement.settings, None
    assert entry is not None
    check_store(target)
    check_volume(volume, refinement)
    if volume.planes.startswith("xyz") and not are_cubes(volume.spacing, entry):
        raise ValueError(
            f"planes: {volume.planes!r} is for voxels as deep as wide, and these are "
            "not; choose z, or z with neighbours"
        )
    family = session.images.family(entry.key)
    mask = _exclusion(entry, family, volume.volume_shape[0])
    scribbles = _scribbles(family, volume, mask)
    if session.is_loaded:
        loaded = session.named_classifier()
    elif len(np.unique(scribbles.ids)) < 2:
        raise ValueError(
            "A volume is trained on its own scribbles: paint two classes on its planes."
        )
    size, unit = entry.pixel_size or (None, NO_UNIT)
    file = ImageFile(volume, size, unit_symbol(unit))
    names = {i: one.name for i, one in session.classes.items()}
    about: dict[str, Any] = {"exclusion": mask, "refinement": refinement}
    about["colors"] = {i: one.color for i, one in session.classes.items()}

    def segment(context: TaskContext) -> Streamed:
        source = FeatureSource.load(options, context)
        if loaded is not None:
            return stream_image(file, loaded, source, target, context, **about)
        trained = train_series(
            [volume],
            [scribbles],
            source.backbone,
            normalisation=options.normalisation,
            exclusion=[mask],
            progress=partial(context.progress, "Training on the stack"),
            should_stop=context.should_stop,
            blocks=True,
            **options.choices,
        )
        classifier, (features,) = trained.classifier, trained.features
        classifier.class_names = {int(i): names[int(i)] for i in classifier.classes}
        return stream_labels(file, features, classifier, target, context, **about)

    return segment


def made_of(session: Session, stack: PlaneKey) -> tuple[Any, ...]:
    """Return what is equal while all planes of a stack would be segmented alike."""
    family = session.images.family(stack)
    painted = {
        e.key: e.scribbles_fingerprint for e in family if e.class_ids and e.trains
    }
    excluded = {e.exclusion_fingerprint for e in family if e.exclusion is not None}
    loaded = session.classifier if session.is_loaded else None
    refinement, planes = session.refinement.settings, session.options.planes
    return painted, excluded, loaded, refinement, planes


def are_cubes(spacing: tuple[float, str] | None, entry: ImageEntry) -> bool:
    """Whether voxels are nearly as deep as wide, or not known to be otherwise."""
    ratios = pixel_ratio(spacing, entry.pixel_size) or (1.0,)
    return all(1 / NEARLY < ratio < NEARLY for ratio in ratios)


def _exclusion(
    entry: ImageEntry, family: list[ImageEntry], planes: int
) -> NDArray[np.bool_] | None:
    """Return what is excluded; of a plane that is no entry yet, as of the current."""
    known = {one.key.plane[0]: one.exclusion for one in family}
    if all(mask is None for mask in known.values()):
        return None
    masks = (known.get(z, entry.exclusion) for z in range(planes))
    nothing = np.zeros(entry.shape, bool)
    return np.concatenate([nothing if one is None else one for one in masks])


def _scribbles(
    family: list[ImageEntry], volume: LazyVolume, mask: NDArray[np.bool_] | None
) -> SparseLabels:
    """Return what is painted on the planes of a stack, plane below plane."""
    pixels, ids = [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    for one in sorted(family, key=lambda entry: entry.key):
        if one.scribbles is not None and one.trains:
            first = one.key.plane[0] * one.shape[0] * one.shape[1]
            pixels.append(one.scribbles.sparse.pixels + first)
            ids.append(one.scribbles.sparse.ids)
    there, labels = np.concatenate(pixels), np.concatenate(ids)
    kept = slice(None) if mask is None else ~mask.ravel()[there]
    return SparseLabels(volume.shape, there[kept], labels[kept])


def volume_options(session: Session) -> FeatureOptions:
    """Return the options of what is shown, for a volume with grey levels of its own."""
    made, chosen = session.options_in_use, session.options
    made = replace(made, value_range=chosen.value_range, planes=chosen.planes)
    return replace(made, channels="", pixel_size=None, resamples=True)  # as it is


def is_streamed(volume: LazyVolume, pixels: Any) -> bool:
    """Whether all planes go into a file: they are lazy, many, or know of each other."""
    is_lazy = not isinstance(pixels, np.ndarray) or isinstance(pixels, np.memmap)
    return is_lazy or volume.planes != "z" or volume.size > LARGE


def cost_text(volume: LazyVolume, options: FeatureOptions, classes: int) -> str:
    """Return what a volume takes, in words; ValueError where a slice is too small."""
    (z, y, x), is_xyz = volume.volume_shape, volume.planes.startswith("xyz")
    shapes = [(y, x), (z, x), (z, y)] if is_xyz else [(y, x)]
    costs = [estimate_cost(shape, options) for shape in shapes]
    most = max(costs, key=lambda cost: cost.peak_bytes)
    if not most.fits:
        most = estimate_cost((y, x), options, block=BLOCK)
    peak = most.peak_bytes + context_bytes(volume, classes - 1)
    passes = "1 pass" if most.passes == 1 else f"{most.passes} passes"
    text = f"{z} planes, {passes} each, {bytes_text(peak)} of memory"
    text += f" ({bytes_text(most.available_bytes)} free)"
    if is_xyz:
        disk = bytes_text(8 * (classes - 1) * volume.size)
        text += f"; each voxel three times, {disk} of disk meanwhile"
    return text
