"""What the status says: what there is, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_hrdv2.core.features.options import absolute_range

if TYPE_CHECKING:
    from napari_hrdv2.session.session import Session


def next_step(session: Session) -> str:
    """Return what to do next, in one or two sentences."""
    if session.image is None:
        return "Open an image to begin."
    if session.is_loaded:
        return _with_loaded(session)
    if session.features is None:
        return _without_features(session)
    outdated = session.options_in_use.difference(session.options)
    if outdated:
        made, wanted = outdated
        what = "Features" if session.segmentation is None else "Result"
        return f"{what} from {made}; press Compute features to use {wanted}."
    return _paint(session)


def _without_features(session: Session) -> str:
    if session.current is not None and session.current.was_segmented:
        return (
            "The features of this image were given up when you left it; its last "
            "segmentation is shown. Press Compute features to go on."
        )
    if session.scribbles is None:
        return "Press Compute features. Press Paint to make a scribble layer."
    return "Press Compute features; you can paint meanwhile."


def _paint(session: Session) -> str:
    if session.scribbles is None:
        return "Press Paint to make a scribble layer."
    images = session.images.usable()
    painted = sorted({i for entry in images for i in entry.class_ids})
    if not painted:
        return "Paint a few strokes of each class."
    if len(painted) == 1:
        name = session.classes[painted[0]].name
        return f"Only {name} has strokes: choose another class and paint it too."
    if session.segmentation is None:
        return "Segmenting."
    others = [entry for entry in images if entry is not session.current]
    named = "another image" if len(images) == 1 else f"{len(images)} images"
    strokes = f", by the strokes on {named}" if others else ""
    return f"Segmented{strokes}. Paint where it is wrong, or save the classifier."


def _with_loaded(session: Session) -> str:
    options = session.options
    wanted = f"{options.backbone} with {' and '.join(options.transform_sets)}"
    if session.features is None:
        return f"The loaded classifier needs features by {wanted}: press Compute."
    mismatch = session.loaded_mismatch()
    if mismatch:
        from napari_hrdv2.core.classifier.compatibility import other_channels

        trained = session.classifier.part_options if session.classifier else ()
        if other_channels(trained, session.features.part_options):
            return mismatch  # computing again would not help
        levels = absolute_range(trained)
        if options.value_range != levels:
            return f"{mismatch} Load it again to take over its grey levels."
        return f"{mismatch} Press Compute features to have them by {wanted}."
    return "Segmented by the loaded classifier. Painting trains a new one."
