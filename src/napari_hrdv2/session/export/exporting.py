"""Results as files: which pictures, which files, under which names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.core.features.options import (
    FeatureOptions,
    PartOptions,
    absolute_range,
)
from napari_hrdv2.session.export.provenance import (
    ImageRecord,
    Provenance,
)
from napari_hrdv2.session.fit_history import light_copy
from napari_hrdv2.session.tasks.context import compute
from napari_hrdv2.session.tasks.update import update_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.classes import ClassInfo
    from napari_hrdv2.session.export.request import Exported, ExportRequest
    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.update import Update

EXPORTS = {
    "labels": "Labels, TIFF",
    "colors": "Colours, PNG",
    "zarr": "OME-Zarr",
    "strokes": "Strokes, TIFF",
    "fractions": "Shares, CSV",
    "script": "Script, text",
}
"""What can be written, and what it is called."""

_SHORT = {  # viewers spell units out
    "picometer": "pm",
    "angstrom": "Å",
    "nanometer": "nm",
    "micrometer": "µm",
    "micron": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}

CLASSIFIER = "classifier.safetensors"
FRACTIONS, SCRIPT, METHODS = "fractions.csv", "segment.py", "methods.md"


@dataclass(frozen=True, eq=False)
class Item:
    """One picture as it is exported.

    Attributes
    ----------
    key : PlaneKey
        Of the picture.
    record : ImageRecord
        But for strokes, what is left out and shares, which are found in the worker.
    stem : str
        What its files begin with; no other picture's do.
    image : array or Plane
    segmentation : (H, W) int array or None
        What is shown.
    strokes : (H, W) int array or None
        As painted.
    counted : (H, W) int array or None
        Those that were trained on.
    exclusion : (H, W) bool array or None
    is_wanted : bool
        Whether results are written; else it is there because it trained.
    trains : bool
        Whether the classifier was trained on it.
    """

    key: PlaneKey
    record: ImageRecord
    stem: str
    image: Any
    segmentation: NDArray[Any] | None
    strokes: NDArray[Any] | None
    counted: NDArray[Any] | None
    exclusion: NDArray[Any] | None
    is_wanted: bool
    trains: bool

    @property
    def results(self) -> NDArray[Any] | None:
        """The segmentation, if it is wanted."""
        return self.segmentation if self.is_wanted else None


def export_all(
    session: Session,
    folder: str | os.PathLike[str],
    *,
    what: Collection[str] = tuple(EXPORTS),
    all_images: bool = False,
    replace: bool = False,
) -> Exported:
    """Write results into a folder, here and now.

    Parameters
    ----------
    session : Session
    folder : path-like
        It is made if it is not there.
    what : collection of str
        Of `EXPORTS`.
    all_pictures : bool, optional
        All, in place of the current one. They are segmented by the present classifier
        and refined alike first; those that cannot be are left out, and a note says so.
    replace : bool, optional
        Whether files that are there may be replaced.

    Returns
    -------
    Exported

    Raises
    ------
    FileExistsError
        If files are there that would be replaced.
    OSError
        If a file cannot be written.
    ValueError
        If there is nothing to export, or `what` names something else.
    """
    request = export_request(session, folder, what=what, all_images=all_images)
    there = request.existing()
    if there and not replace:
        raise FileExistsError(
            f"folder: {request.folder} has {', '.join(path.name for path in there)} "
            "already; choose another one, or allow it to be replaced"
        )
    exported: Exported = compute(request)
    return exported


def export_request(
    session: Session,
    folder: str | os.PathLike[str],
    *,
    what: Collection[str] = tuple(EXPORTS),
    all_images: bool = False,
) -> ExportRequest:
    """Return the request to write results; arguments and errors as `export_all`."""
    from napari_hrdv2.session.export.request import ExportRequest

    unknown = sorted(set(what) - set(EXPORTS))
    if unknown or not what:
        seen = ", ".join(unknown) or "nothing"
        raise ValueError(f"what: {seen} is not in {', '.join(EXPORTS)}")
    current = session.current
    chosen = list(session.images.values()) if all_images else [current]
    update = update_of(session, [one for one in chosen if one is not None])
    notes = [update.note] if all_images else []
    wanted = list(update.images)
    if not wanted and update.skipped:  # as it is, rather than nothing
        wanted, notes = [*update.skipped], []
    if not wanted:
        raise ValueError(
            "segmentation: there is none to export yet; compute features and paint two "
            "classes first"
        )
    items = _items(session, wanted)
    record = None
    if "script" in what:
        reason = _no_script(session, items, update)
        if reason and set(what) == {"script"}:
            raise ValueError(f"script: {reason}")
        record = None if reason else _record(session, items)
        notes += [f"No script was written: {reason}."] if reason else []
    classifier = session.classifier
    return ExportRequest(
        folder=Path(folder),
        what=frozenset(what),
        items=tuple(items),
        classes=dict(session.classes),
        record=record,
        classifier=light_copy(classifier) if classifier and record else None,
        is_loaded=session.is_loaded,
        update=update.request,
        notes=tuple(filter(None, notes)),
    )


def _no_script(session: Session, items: Sequence[Item], update: Update) -> str:
    """Return why nobody can say how the results were made, or ""."""
    classifier = session.classifier
    if classifier is None:
        return "there is no classifier any more; paint two classes and segment first"
    if not classifier.part_options:
        return "nothing is known of how the features were made; compute them first"
    if not update.images:
        return (
            "the result is of an older classifier, or refined otherwise than the "
            "settings say; compute the features of this image first"
        )
    if not session.is_loaded and not any(item.trains for item in items):
        return "no image has strokes that the classifier was trained on"
    return ""


def _items(session: Session, wanted: Sequence[ImageEntry]) -> list[Item]:
    """Return the pictures that trained, in that order, and those that are wanted."""
    trained = [] if session.is_loaded else session.images.usable()
    if not trained and not session.is_loaded:
        trained = session.images.painted()
    found, taken = [], set[str]()
    for entry in [*trained, *(one for one in wanted if one not in trained)]:
        stem = _free_stem(entry, taken)
        taken.add(stem)
        found.append(
            _item(
                entry,
                stem,
                session,
                wanted=entry in wanted,
                trains=entry in trained,
            )
        )
    return found


def _item(
    entry: ImageEntry, stem: str, session: Session, *, wanted: bool, trains: bool
) -> Item:
    record = ImageRecord(
        name=entry.name or stem,
        shape=entry.shape,
        path=entry.source if entry.source and not entry.plane else None,
        pixel_size=_short_unit(entry.pixel_size),
        value_range=_value_range(entry, session.classifier),
    )
    counted = entry.strokes if trains else None
    return Item(
        key=entry.key,
        record=record,
        stem=stem,
        image=entry.image,
        segmentation=_segmentation(entry),
        strokes=entry.scribbles.labels if entry.scribbles is not None else None,
        counted=counted.labels if counted is not None else None,
        exclusion=entry.exclusion,
        is_wanted=wanted,
        trains=trains,
    )


def _segmentation(entry: ImageEntry) -> NDArray[Any] | None:
    """Return what is shown of a picture, unless that is nothing."""
    result = entry.result
    return None if result is None or not result.fractions else result.shown


def _value_range(
    entry: ImageEntry, classifier: PixelClassifier | None
) -> tuple[float, float] | None:
    """Return the grey levels that became 0 and 1 in the features of a picture."""
    features = entry.features
    if features is None and entry.samples is not None:
        features = entry.samples.features
    if features is not None and features.part_options:
        parts: Sequence[PartOptions] = features.part_options
        return max(parts, key=lambda part: part.patch_size).value_range
    return absolute_range(classifier.part_options) if classifier is not None else None


def _record(session: Session, items: Sequence[Item]) -> partial[Provenance]:
    """Return what was done, but for the images, which are looked at in the worker."""
    classifier = session.classifier
    assert classifier is not None  # else there is no script
    trained = [session.images[item.key] for item in items if item.trains]
    used = {i for one in trained for i in one.class_ids}
    used |= {int(i) for i in classifier.classes}
    classes: dict[int, ClassInfo] = {
        i: v for i, v in session.classes.items() if i in used
    }
    refinement = session.refinement.settings
    return partial(
        Provenance,
        features=FeatureOptions.of(
            classifier.part_options, weights=session.options_in_use.weights
        ),
        weights_hashes=tuple(part.weights_hash for part in classifier.part_options),
        classes=classes,
        C=classifier.C,
        balanced=classifier.balanced,
        self_training=classifier.self_training,
        classifier_file=CLASSIFIER if session.is_loaded else None,
        labels_hash=classifier.labels_hash,
        refinement=None if refinement.is_off else refinement,
    )


def _short_unit(size: tuple[float, str] | None) -> tuple[float, str] | None:
    return None if size is None else (size[0], _SHORT.get(size[1], size[1]))


def _free_stem(entry: ImageEntry, taken: set[str]) -> str:
    name = Path(entry.source).stem if entry.source else entry.name
    place = "".join(f"_{axis}{i}" for axis, i in entry.plane.items())
    stem = (
        re.sub(r"[^\w-]+", "_", f"{name or 'picture'}{place}").strip("_") or "picture"
    )
    names = (stem if n == 1 else f"{stem}_{n}" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
