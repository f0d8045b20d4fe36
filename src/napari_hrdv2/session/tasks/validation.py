"""Whether the strokes of some images suffice for another one: request and answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.cross_validation import HeldOut
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.session import Session
    from napari_hrdv2.session.tasks.context import TaskContext


@dataclass(frozen=True)
class ValidationResult:
    """How well each picture is predicted from the strokes on all others.

    Attributes
    ----------
    scores : dict of PlaneKey to HeldOut
        By the key of the picture.
    mean : float
        Mean IoU of those that could be scored; NaN if none could.
    text : str
        The same in sentences.
    """

    scores: dict[PlaneKey, HeldOut]
    mean: float
    text: str


@dataclass(frozen=True)
class ValidationRequest:
    """Each of some pictures is to be predicted from the strokes on the others.

    Attributes
    ----------
    keys : tuple of PlaneKey
    names : tuple of str
        Of the pictures.
    features : tuple of Features
    labels : tuple of (H, W) int arrays
        The strokes that count.
    classifier : PixelClassifier or None
        How to fit; it is not changed.
    class_names : dict of int to str
    """

    keys: tuple[PlaneKey, ...]
    names: tuple[str, ...]
    features: tuple[Any, ...]
    labels: tuple[NDArray[Any], ...]
    exclusion: tuple[NDArray[Any] | None, ...]
    classifier: PixelClassifier | None
    class_names: dict[int, str]

    def answer(self, context: TaskContext) -> ValidationResult:
        """Fit once for each picture and score it."""
        import numpy as np

        from napari_hrdv2.core.classifier.cross_validation import (
            leave_one_image_out,
            summary,
        )

        results = leave_one_image_out(
            self.features,
            self.labels,
            classifier=self.classifier,
            exclusion=self.exclusion,
            progress=partial(context.progress, "Leaving one image out"),
            should_stop=context.should_stop,
        )
        scored = [one.miou for one in results if not np.isnan(one.miou)]
        text = summary(results, names=self.names, class_names=self.class_names)
        if len({key.image for key in self.keys}) < len(self.keys):
            text += (
                " Planes of one stack resemble each other: do not expect as much of "
                "another specimen."
            )
        return ValidationResult(
            dict(zip(self.keys, results, strict=True)),
            float(np.mean(scored)) if scored else float("nan"),
            text,
        )


def validation_request(session: Session) -> ValidationRequest:
    """Return the request to score the pictures that train.

    Raises
    ------
    ValueError
        If fewer than two pictures have strokes and features that go together.
    """
    usable = session.images.usable()
    if len(usable) < 2:
        waiting = len(session.images.painted()) - len(usable)
        raise ValueError(
            f"images: {len(usable)} of them has strokes and features, two at least "
            "are needed to leave one out; "
            + ("compute features first" if waiting else "paint on another image too")
        )
    parts = [entry.training_part() for entry in usable]
    return ValidationRequest(
        tuple(entry.key for entry in usable),
        tuple(entry.name or str(entry.key) for entry in usable),
        tuple(part.features for part in parts),
        tuple(part.labels for part in parts),
        tuple(part.exclusion for part in parts),
        session.classifier,
        {class_id: info.name for class_id, info in session.classes.items()},
    )
