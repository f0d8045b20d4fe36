"""The session as a project, saved as it changes, and a project as the session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.features.options import absolute_range
from napari_hrdv2.session.classes import matched_classes, relabelled
from napari_hrdv2.session.images import ImageEntry
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.session import Session

from .autosave import AutosaveStore
from .format import Fingerprints, Project, SavedImage

if TYPE_CHECKING:
    from psygnal import SignalInstance


Write = Callable[[PlaneKey, Any], object]
"""Called with the key of an image entry and its (H, W) scribbles."""


def project_of(
    session: Session,
    *,
    painted_only: bool = False,
    fingerprints: Fingerprints | None = None,
) -> Project:
    """Return all that a session holds, as it is now.

    It shares arrays with the session, which never changes one in place. Images that
    `fingerprints` does not know have none yet: saving finds it. With `painted_only`
    it has no images on which nothing was done; of stacks it never has.
    """
    known = fingerprints or Fingerprints()
    classifier, current = session.classifier, session.current
    is_fitted = classifier is not None and classifier.is_fitted
    images = [
        _saved(entry, known)
        for entry in session.images.values()
        if entry.has_something_set
        or (entry.scribbles is not None and entry.scribbles.class_ids)
        or (entry is current and (is_fitted or not painted_only))
        or not (entry.plane or painted_only)
    ]
    return Project(
        images=tuple(images),
        classes=dict(session.classes),
        options=session.options,
        classifier=classifier.light_copy() if classifier and is_fitted else None,
        refinement=session.refinement.to_dict(),
        current=current.key if current is not None else None,
    )


class Autosaver:
    """Writes an autosave after each change of what a user made.

    A write that failed is tried again with the next `save`, changed or not. `soon` is
    called after each change in place of `save`, which it is to call a little later: so
    that many changes cost one write.
    """

    def __init__(
        self,
        session: Session,
        store: AutosaveStore,
        *,
        soon: Callable[[], object] | None = None,
    ) -> None:
        self._session, self.store = session, store
        self._soon = soon or self.save
        self._saved: list[object] | None = None
        for signal in self._signals():
            signal.connect(self._on_changed)

    def save(self) -> None:
        """Have everything written as it is now, unless it was given to write before."""
        known = self.store.fingerprints
        project = project_of(self._session, painted_only=True, fingerprints=known)
        if self._saved is None and not project.images:
            return  # nothing has been done yet
        state = self._state(project)
        if self.store.has_failed or state != self._saved:
            self._saved = state
            self.store.submit(project)

    def flush(self, timeout: float | None = None) -> bool:
        """Save what there is now and wait until it is written, or has failed."""
        self.save()
        return self.store.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Save what there is and listen no longer; the thread ends by itself."""
        for signal in self._signals():
            signal.disconnect(self._on_changed, missing_ok=True)
        self.save()
        return self.store.close(timeout)

    def _signals(self) -> list[SignalInstance]:
        session = self._session
        return [
            session.images_changed,
            session.classes_changed,
            session.options_changed,
            session.segmentation_changed,  # with it the classifier
            session.refinement.changed,
        ]

    def _on_changed(self) -> None:
        self._soon()

    def _state(self, project: Project) -> list[object]:
        """Return what differs when a project does."""
        entries = [self._session.images[saved.key] for saved in project.images]
        images = [
            (
                one.key,
                one.trains,
                one.scribbles and one.scribbles.fingerprint,
                one.exclusion_fingerprint,
                one.partition,  # never changed in place: another one differs
            )
            for one in entries
        ]
        weight = project.classifier.weight.tobytes() if project.classifier else b""
        choices = [project.options, project.refinement, project.current]
        return [images, list(project.classes.items()), weight, *choices]


def restore(session: Session, project: Project) -> tuple[SavedImage, ...]:
    """Take a project over, without a window; return the images that are nowhere.

    Images that are open already are known by their fingerprints; those with their
    pixels in the project are added, under another key where theirs is taken. Of those
    that are returned nothing was taken over.
    """
    keys = open_images(list(session.images.values()), project, Fingerprints())
    theirs = [saved.key for saved in project.images]
    for saved in project.images:
        if saved.key in keys or saved.image is None:
            continue
        key = saved.key
        if key in session.images:
            taken = {*session.images, *theirs}
            free = (PlaneKey(f"{key.image}-{n}", key.plane) for n in count(2))
            key = next(one for one in free if one not in taken)
        session.images.add(
            saved.image,
            key,
            name=saved.name,
            source=saved.source,
            pixel_size=saved.pixel_size,
            plane=dict(saved.plane),
        )
        keys[saved.key] = key
    chosen = keys.get(project.current) if project.current else None
    if chosen is not None:
        session.set_image(session.images[chosen].image, chosen)
    take_over(session, project, keys)
    return tuple(saved for saved in project.images if saved.key not in keys)


def open_images(
    images: Sequence[ImageEntry], project: Project, fingerprints: Fingerprints
) -> dict[PlaneKey, PlaneKey]:
    """Return which images are in a project: their keys by the project's.

    An image may be open twice: an entry goes with the one of its own key, else the
    entry that was current goes with the first of `images` that is alike.
    """
    shapes = {saved.shape for saved in project.images}
    ours: dict[str, list[PlaneKey]] = {}
    for entry in images:
        if entry.shape in shapes:
            fingerprint = fingerprints.of(entry.key, entry.image)
            ours.setdefault(fingerprint, []).append(entry.key)

    def rank(saved: SavedImage) -> tuple[bool, bool]:
        has_own = saved.key in ours.get(saved.image_fingerprint, ())
        return not has_own, saved.key != project.current

    keys: dict[PlaneKey, PlaneKey] = {}
    for saved in sorted(project.images, key=rank):
        alike = ours.get(saved.image_fingerprint, [])
        if alike:
            key = saved.key if saved.key in alike else alike[0]
            alike.remove(key)
            keys[saved.key] = key
    return keys


def take_over(
    session: Session,
    project: Project,
    keys: Mapping[PlaneKey, PlaneKey],
    *,
    write: Write | None = None,
) -> tuple[str, ...]:
    """Take over scribbles and masks, and all choices if nothing else is open.

    Where other images have scribbles, those go on to count: the project's classes are
    matched with those that are there by their names, and options, refinement and
    classifier stay. Else its images become what they were: what was painted or
    excluded since is taken back too.

    `keys` are those in the session by those in the project; other images are not taken.
    `write` writes scribbles, by default into the session alone. What stayed as it is
    here is returned, one sentence each.
    """
    write = write or (lambda key, labels: session.set_scribbles(labels, key))
    is_whole = is_taken_whole(session, keys)
    notes: list[str] = []
    ids: dict[int, int] = {}
    if is_whole:
        session.classes.restore(project.classes)
        notes += _restore_choices(session, project)
    else:
        ids = matched_classes(session.classes, project.classes)
        notes.append(
            "Other images here have scribbles: classes were matched by their names, "
            "and options and classifier stayed."
        )
    for saved in project.images:
        if saved.key not in keys:
            continue
        key = keys[saved.key]
        labels = _scribbles_for(session.images.get(key), saved, erases=is_whole)
        if labels is not None:
            write(key, relabelled(labels, ids))
        entry = session.images[key]
        if saved.exclusion is not None or (is_whole and entry.exclusion is not None):
            session.set_exclusion(saved.exclusion, key)
        if saved.partition is not None or is_whole:
            name = saved.partition_name
            session.images.set_partition(entry, saved.partition, name)
        session.set_trains(key, saved.trains)
    if is_whole and project.classifier is not None and _fits(project):
        session.adopt_classifier(project.classifier, session.options)
    return tuple(notes)


def is_taken_whole(session: Session, keys: Mapping[PlaneKey, PlaneKey]) -> bool:
    """Whether no image but those with these keys has scribbles that go on to count.

    Then `take_over` also erases what an image has and the project has not.
    """
    others = [one for key, one in session.images.items() if key not in keys.values()]
    return not any(one.class_ids for one in others)


def replaced_names(
    session: Session, project: Project, keys: Mapping[PlaneKey, PlaneKey]
) -> list[str]:
    """Return the names of images whose scribbles `take_over` would replace or erase."""
    erases, names = is_taken_whole(session, keys), []
    for saved in project.images:
        entry = session.images.get(keys[saved.key]) if saved.key in keys else None
        former = None if entry is None else entry.scribbles
        if entry is None or former is None or not former.class_ids:
            continue
        if saved.scribbles is None:
            is_other = erases
        else:
            is_other = not np.array_equal(former.labels, saved.scribbles)
        if is_other:
            names.append(entry.name)
    return names


def _scribbles_for(
    entry: ImageEntry | None, saved: SavedImage, *, erases: bool
) -> NDArray[Any] | None:
    """Return what to write, also to a plane not shown yet; None to leave it."""
    if saved.scribbles is not None:
        return saved.scribbles
    former = None if entry is None else entry.scribbles
    if entry is None or (erases and former is not None and former.class_ids):
        return np.zeros(saved.shape, np.uint8)
    return None


def _saved(entry: ImageEntry, fingerprints: Fingerprints) -> SavedImage:
    scribbles, partition = entry.scribbles, entry.partition
    return SavedImage(
        key=entry.key,
        name=entry.name or "image",
        source=entry.source or None,
        plane=dict(entry.plane),
        shape=entry.shape,
        image_fingerprint=fingerprints.known(entry.key, entry.image),
        pixel_size=entry.pixel_size,
        scribbles=scribbles.labels if scribbles and scribbles.class_ids else None,
        exclusion=entry.exclusion,
        trains=entry.trains,
        image=entry.image,  # type: ignore[arg-type] # a Plane is read when saved
        partition=None if partition is None else partition.labels,
        partition_name="" if partition is None else partition.name,
    )


def _fits(project: Project) -> bool:
    """Whether the classifier serves all images as it did before.

    One that is taken over asks for the grey levels that it was trained on. Where images
    have levels of their own, the scribbles train a new one, as they did then.
    """
    assert project.classifier is not None
    trained = (one.scribbles for one in project.images if one.trains)
    ids = [np.unique(labels) for labels in trained if labels is not None]
    painted = set(np.concatenate(ids).tolist()) if ids else set()
    if len(project.images) < 2 or len(painted - {0}) < 2:
        return True
    return absolute_range(project.classifier.part_options) is None


def _restore_choices(session: Session, project: Project) -> list[str]:
    """Take options and refinement over as far as this machine knows them."""
    notes = []
    try:
        device = session.options.device  # of this machine
        options = replace(project.options, device=device, backbone=_backbone(project))
        session.configure(**vars(options))
    except ValueError as error:
        notes.append(f"The options cannot be used here: {error}.")
    try:
        session.refinement.from_dict(project.refinement)
    except ValueError as error:
        notes.append(f"The refinement cannot be used here: {error}.")
    return notes


def _backbone(project: Project) -> str:
    """Return the backbone that the project chose, as its classifier knows it."""
    names = {name: name for name in project.options.parts}
    if project.classifier is not None:
        for part in project.classifier.part_options:
            names[part.backbone.partition(":")[0]] = part.backbone
    return "+".join(names[name] for name in project.options.parts)
