"""The session as a project, and a project as the session."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.features.options import absolute_range
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.project.fingerprints import image_fingerprint
from napari_hrdv2.session.project.format import Project, SavedImage, save_project

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.session.classes import Classes, ClassInfo
    from napari_hrdv2.session.image_entry import ImageEntry
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import TaskContext

Write = Callable[[PlaneKey, Any], object]
"""Called with the key of a picture and its (H, W) strokes."""


class Fingerprints:
    """The digests of images, each computed once; any thread may ask."""

    def __init__(self) -> None:
        self._known: dict[PlaneKey, tuple[weakref.ref[Any], str]] = {}

    def known(self, key: PlaneKey, image: Any) -> str:
        """Return the digest of a picture's image, "" if it was not computed yet."""
        found = self._known.get(key)
        return found[1] if found is not None and found[0]() is image else ""

    def of(self, key: PlaneKey, image: Any) -> str:
        """Return the digest of a picture's image, computed now if need be."""
        fingerprint = self.known(key, image)
        if not fingerprint:
            fingerprint = image_fingerprint(np.asarray(image))
            self._known[key] = weakref.ref(image), fingerprint
        return fingerprint


def project_of(
    session: Session,
    *,
    painted_only: bool = False,
    fingerprints: Fingerprints | None = None,
) -> Project:
    """Return all that a session holds, as it is now.

    It shares arrays with the session, which never changes one in place. Images that
    `fingerprints` does not know have no digest yet: `with_fingerprints` finds it.

    Parameters
    ----------
    session : Session
    painted_only : bool, optional
        Leave out pictures on which nothing was done, and of stacks always do.
    digests : Digests, optional
        Of images that are known already.

    Returns
    -------
    Project
        With the images of its pictures.
    """
    known = fingerprints or Fingerprints()
    classifier, current = session.classifier, session.current
    is_fitted = classifier is not None and classifier.is_fitted
    kept = [
        _saved(entry, known)
        for entry in session.images.values()
        if _is_worked_on(entry)
        or (entry is current and (is_fitted or not painted_only))
        or not (entry.plane or painted_only)
    ]
    return Project(
        images=tuple(kept),
        classes=dict(session.classes),
        options=session.options,
        classifier=classifier.light_copy() if classifier and is_fitted else None,
        refinement=session.refinement.to_dict(),
        current=current.key if current is not None else None,
    )


def with_fingerprints(
    project: Project, fingerprints: Fingerprints, *, with_images: bool = True
) -> Project:
    """Return a project of which every picture has its digest; may read all images."""
    images = [
        replace(
            entry,
            image_fingerprint=entry.image_fingerprint
            or fingerprints.of(entry.key, entry.image),
            image=np.asarray(entry.image) if with_images else None,
        )
        for entry in project.images
    ]
    return replace(project, images=tuple(images))


@dataclass(frozen=True, eq=False)
class SaveRequest:
    """A project is to be written; the answer is the path of the file."""

    project: Project
    path: Path
    fingerprints: Fingerprints
    with_images: bool = True

    def answer(self, context: TaskContext) -> Path:
        """Write it, whole or not at all."""
        context.progress("Saving the project", 0, 1)
        project = with_fingerprints(
            self.project, self.fingerprints, with_images=self.with_images
        )
        return save_project(project, self.path, with_images=self.with_images)


def restore(session: Session, project: Project) -> tuple[SavedImage, ...]:
    """Take a project over, without a window.

    Pictures that are open already are known by their digests; those with their images
    in the project are added, under another key where theirs is that of another image.

    Parameters
    ----------
    session : Session
    project : Project

    Returns
    -------
    tuple of SavedPicture
        Those whose images are nowhere: their strokes were not taken over.
    """
    keys = open_images(list(session.images.values()), project, Fingerprints())
    for saved in project.images:
        if saved.key in keys or saved.image is None:
            continue
        key = saved.key
        if key in session.images:
            theirs = [one.key for one in project.images]
            key = _free_key(key, {*session.images, *theirs})
        session.images.add(saved.image, key, **about(saved))
        keys[saved.key] = key
    chosen = keys.get(project.current) if project.current else None
    if chosen is not None:
        session.set_image(session.images[chosen].image, chosen)
    take_over(session, project, keys)
    return tuple(one for one in project.images if one.key not in keys)


def about(saved: SavedImage) -> dict[str, Any]:
    """Return what `session.Picture` is told of a saved picture."""
    return {
        "name": saved.name,
        "source": saved.source,
        "pixel_size": saved.pixel_size,
        "plane": dict(saved.plane),
    }


def open_images(
    images: Sequence[ImageEntry], project: Project, fingerprints: Fingerprints
) -> dict[PlaneKey, PlaneKey]:
    """Return which of the pictures are in a project: their keys by the project's.

    An image may be open twice: a picture goes with the one of its own key, else the
    picture that was current goes with the first of `images` that is alike.
    """
    shapes = {saved.shape for saved in project.images}
    ours: dict[str, list[PlaneKey]] = {}
    for entry in images:
        if entry.shape in shapes:
            fingerprint = fingerprints.of(entry.key, entry.image)
            ours.setdefault(fingerprint, []).append(entry.key)
    keys: dict[PlaneKey, PlaneKey] = {}
    for saved in sorted(project.images, key=lambda one: _rank(one, project, ours)):
        alike = ours.get(saved.image_fingerprint, [])
        if alike:
            key = saved.key if saved.key in alike else alike[0]
            alike.remove(key)
            keys[saved.key] = key
    return keys


def _rank(
    saved: SavedImage, project: Project, ours: Mapping[str, Sequence[PlaneKey]]
) -> tuple[bool, bool]:
    """Return what sorts first who has a picture of its own here, then the current."""
    has_own = saved.key in ours.get(saved.image_fingerprint, ())
    return not has_own, saved.key != project.current


def take_over(
    session: Session,
    project: Project,
    keys: Mapping[PlaneKey, PlaneKey],
    *,
    write: Write | None = None,
) -> tuple[str, ...]:
    """Take over strokes and regions, and all choices if nothing else is open.

    Where other pictures have strokes, those go on to count: the project's classes are
    matched with those that are there by their names, and settings, refinement and
    classifier stay. Else its pictures become what they were: what was painted or left
    out since is taken back too, unless the project is damaged.

    Parameters
    ----------
    session : Session
        The picture to work on is current already.
    project : Project
    keys : mapping of PlaneKey to PlaneKey
        Keys in the session by keys in the project; other pictures are left out.
    write : callable, optional
        How strokes are written; by default into the session alone.

    Returns
    -------
    tuple of str
        What of it was left as it is here, one sentence each.
    """
    write = write or (lambda key, labels: session.set_scribbles(labels, key))
    is_whole = is_taken_whole(session, keys)
    notes = list(project.problems)
    ids: dict[int, int] = {}
    if is_whole:
        session.classes.restore(project.classes)
        notes += _restore_options(session, project)
    else:
        ids = matched_classes(session.classes, project.classes)
        notes.append(
            "Other images here have strokes: classes were matched by their names, and "
            "settings and classifier stayed."
        )
    erases = takes_back(session, project, keys)
    for saved in project.images:
        if saved.key not in keys:
            continue
        key = keys[saved.key]
        labels = _strokes_for(session.images.get(key), saved, erases=erases)
        if labels is not None:
            write(key, relabelled(labels, ids))
        _take_regions(session, session.images[key], saved, erases=erases)
        session.set_trains(key, saved.trains)
    if is_whole and project.classifier is not None and _fits(project):
        session.adopt_classifier(project.classifier, session.options)
    return tuple(notes)


def is_taken_whole(session: Session, keys: Mapping[PlaneKey, PlaneKey]) -> bool:
    """Whether no picture but those with these keys has strokes that go on to count."""
    others = [one for key, one in session.images.items() if key not in keys.values()]
    return not any(one.class_ids for one in others)


def takes_back(
    session: Session, project: Project, keys: Mapping[PlaneKey, PlaneKey]
) -> bool:
    """Whether `take_over` erases what a picture has and the project has not.

    What could not be read of a damaged project is not known to have been empty.
    """
    return is_taken_whole(session, keys) and not project.problems


def matched_classes(
    classes: Classes, theirs: Mapping[int, ClassInfo]
) -> dict[int, int]:
    """Return our label ids by theirs, by the names; classes that are new are added."""
    ours = {info.name: class_id for class_id, info in classes.items()}
    ids: dict[int, int] = {}
    for class_id, info in theirs.items():
        if info.name not in ours:
            free = class_id if class_id not in classes else max(classes) + 1
            classes.ensure((free,), names={free: info.name}, colors={free: info.color})
            ours[info.name] = free
        ids[class_id] = ours[info.name]
    return ids


def relabelled(labels: NDArray[Any], ids: Mapping[int, int]) -> NDArray[Any]:
    """Return labels with other ids; those that are not named stay."""
    changed = {old: new for old, new in ids.items() if old != new}
    if not changed or not labels.size:
        return labels
    found, position = np.unique(labels, return_inverse=True)
    new = [changed.get(int(label), int(label)) for label in found]
    kind = np.promote_types(labels.dtype, np.min_scalar_type(max(new)))
    return np.array(new, kind)[position.reshape(labels.shape)]


def _free_key(key: PlaneKey, taken: Collection[PlaneKey]) -> PlaneKey:
    """Return a key like this one that is not taken; of the same plane of a stack."""
    renamed = (PlaneKey(f"{key.image}-{number}", key.plane) for number in count(2))
    return next(one for one in renamed if one not in taken)


def _strokes_for(
    entry: ImageEntry | None, saved: SavedImage, *, erases: bool
) -> NDArray[Any] | None:
    """Return the strokes to write; None where those that are there stay.

    A plane of a stack may not have been shown yet: writing takes it into the session.
    """
    if saved.scribbles is not None:
        return saved.scribbles
    former = None if entry is None else entry.scribbles
    if entry is None or (erases and former is not None and former.class_ids):
        return np.zeros(saved.shape, np.uint8)
    return None


def _take_regions(
    session: Session, entry: ImageEntry, saved: SavedImage, *, erases: bool
) -> None:
    """Take over what is left out, and the regions for the next features."""
    if saved.exclusion is not None or (erases and entry.exclusion is not None):
        session.set_exclusion(saved.exclusion, entry.key)
    if saved.partition is None and not erases:
        return
    if not entry.set_partition(saved.partition, saved.partition_name):
        return
    if entry is session.current:
        session.set_image(entry.image, entry.key)  # tells that the features went
    else:
        session.images_changed.emit()


def _is_worked_on(entry: ImageEntry) -> bool:
    is_painted = entry.scribbles is not None and entry.scribbles.class_ids
    return bool(is_painted) or entry.has_something_set


def _saved(entry: ImageEntry, fingerprints: Fingerprints) -> SavedImage:
    scribbles = entry.scribbles
    painted = scribbles is not None and scribbles.class_ids
    partition = entry.partition
    return SavedImage(
        key=entry.key,
        name=entry.name or "picture",
        source=entry.source or None,
        plane=dict(entry.plane),
        shape=entry.shape,
        image_fingerprint=fingerprints.known(entry.key, entry.image),
        pixel_size=entry.pixel_size,
        scribbles=scribbles.labels if scribbles is not None and painted else None,
        exclusion=entry.exclusion,
        trains=entry.trains,
        image=entry.image,  # type: ignore[arg-type] # a Plane is read when saved
        partition=None if partition is None else partition.labels,
        partition_name="" if partition is None else partition.name,
    )


def _fits(project: Project) -> bool:
    """Whether the classifier serves all pictures as it did before.

    One that is taken over asks for the grey levels that it was trained on. Where images
    have levels of their own, the strokes train a new one, as they did then.
    """
    assert project.classifier is not None
    trained = (one.scribbles for one in project.images if one.trains)
    ids = [np.unique(labels) for labels in trained if labels is not None]
    painted = set(np.concatenate(ids).tolist()) if ids else set()
    if len(project.images) < 2 or len(painted - {0}) < 2:
        return True
    return absolute_range(project.classifier.part_options) is None


def _restore_options(session: Session, project: Project) -> list[str]:
    """Take options and refinement over as far as this machine knows them."""
    notes = []
    try:
        device = session.options.device  # of this machine
        session.configure(**vars(replace(project.options, device=device)))
    except ValueError as error:
        notes.append(f"The options cannot be used here: {error}.")
    try:
        session.refinement.from_dict(project.refinement)
    except ValueError as error:
        notes.append(f"The refinement cannot be used here: {error}.")
    return notes
