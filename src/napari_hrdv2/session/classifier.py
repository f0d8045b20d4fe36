"""The classifier of the session: fitted to scribbles, or loaded from a file."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from napari_hrdv2.core.classifier import samples
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.options import FeatureOptions, upsampled_alike
from napari_hrdv2.core.features.resampled import resampling_factors
from napari_hrdv2.files.units import pixel_ratio, size_text

from .classes import ClassInfo
from .images import ImageEntry, resolved
from .pipeline import PipelineInput, ProcessedImage
from .snapshots import TrainingImage

PixelSize = tuple[float | tuple[float, float], str]
"""Side of a pixel, or its height and width, and the unit."""

_MAGNIFIED = 1.5  # from here on, structures look like others
_REMEMBERED = 128  # fits; more than napari's undo keeps
_LOADED = b"as is"  # before the fingerprint of a loaded classifier


class ClassifierState:
    """The classifier in force, the loaded one, and what was fitted before.

    A loaded classifier is used while the scribbles are those that were there when it
    was loaded, or do not suffice to train on; undoing all later ones brings it back.
    """

    def __init__(self) -> None:
        self.classifier: PixelClassifier | None = None
        self.is_loaded = False
        self.fingerprint = b""  # of the scribbles that it was fitted to
        self.version = 1  # of the last request; answers to older ones are dropped
        self.options: FeatureOptions | None = None  # of the features that it reads
        self._loaded: PixelClassifier | None = None
        self._loaded_fingerprint = _LOADED  # in place of that of scribbles
        # By the scribbles they were fitted to. A fit depends, within its tolerance, on
        # that where it starts: only remembering it gives the same segmentation again.
        self._fits: dict[bytes, PixelClassifier] = {}
        self._scribbles_when_loaded: bytes | None = None

    def drop_answers(self) -> None:
        """Want no answer that is still on its way."""
        self.version += 1

    def adopt(self, classifier: PixelClassifier, painted: Sequence[ImageEntry]) -> None:
        """Take over a classifier from a file, until other scribbles replace it."""
        self.version += 1
        self._scribbles_when_loaded = _scribbles_of(painted)
        self._loaded = classifier
        self._loaded_fingerprint = _LOADED + _fingerprint_of_loaded(classifier)
        self._return_to_loaded()

    def can_train(
        self, painted: Sequence[ImageEntry], usable: Sequence[ImageEntry], force: bool
    ) -> bool:
        """Whether there are scribbles of two classes to train on that are new."""
        if len({i for one in usable for i in one.class_ids}) < 2:
            return False
        if force:  # from now on these scribbles count, too
            self._scribbles_when_loaded = None
        if self._loaded is None:
            return True
        return _scribbles_of(painted) != self._scribbles_when_loaded

    def request(
        self, usable: Sequence[ImageEntry], target: ImageEntry, force: bool
    ) -> PipelineInput | None:
        """Return what to fit to these scribbles and what to segment by it."""
        self.version += 1
        # Of scribbles, and the features that they lie on.
        text = b"|".join(entry.fingerprint() for entry in usable)
        fingerprint = hashlib.blake2b(text, digest_size=16).digest()
        fitted = self.classifier if fingerprint == self.fingerprint else None
        known = None if force else fitted or self._remembered(fingerprint)
        is_done = target.result and target.result.fingerprint == fingerprint
        if known and is_done:
            if known is not fitted:
                self._use(known, fingerprint, target)
            return None
        start = None if self.is_loaded else self.classifier
        training = () if known else tuple(one.training_image() for one in usable)
        return self._ask(target, fingerprint, known or start, training)

    def request_as_loaded(self, target: ImageEntry | None) -> PipelineInput | None:
        """Return the request to segment by the loaded classifier, unless it is done."""
        self.version += 1
        if self._loaded is None:
            return None
        if not self.is_loaded:
            self._return_to_loaded()
        if target is None or self.mismatch(target) or self.is_as_loaded(target):
            return None
        return self._ask(target, self._loaded_fingerprint, self._loaded)

    def mismatch(self, target: ImageEntry | None) -> str:
        """Return why the loaded classifier cannot be used on the features, or ""."""
        if target is None or target.features is None or self._loaded is None:
            return "There are no features yet."
        return self._loaded.mismatch(target.features)

    def is_as_loaded(self, entry: ImageEntry) -> bool:
        """Whether the result of an image came from the loaded classifier."""
        result = entry.result
        return result is not None and result.fingerprint == self._loaded_fingerprint

    def trained_by(self, entries: Sequence[ImageEntry]) -> list[TrainingImage]:
        """Return these images as they train; none where others trained a loaded one."""
        images = [one.training_image() for one in entries]
        known = self._loaded.labels_hash if self.is_loaded and self._loaded else None
        is_own = known in (None, samples.fingerprint(one.labels for one in images))
        return images if is_own else []

    def can_segment(self, entry: ImageEntry) -> bool:
        """Whether the classifier in force reads the features of an image."""
        classifier = self.classifier
        if classifier is None or entry.features is None or entry.options is None:
            return False
        if self.is_loaded:
            return classifier.mismatch(entry.features) == ""
        made, known = classifier.part_options, entry.features
        if not entry.is_made_by(self.options or entry.options):
            return False
        is_alike = upsampled_alike(made, known.part_options)
        return is_alike and bool(known.shape[0] == classifier.weight.shape[1])

    def accept(self, done: ProcessedImage, entry: ImageEntry) -> bool:
        """Take over what segmented an image; return False if it is too old."""
        assert done.result is not None
        if not done.version:
            return done.result.fingerprint == self.fingerprint
        if done.version != self.version or done.result.classifier is None:
            return False
        self._use(done.result.classifier, done.result.fingerprint, entry)
        return True

    def give_up_fit(self) -> None:
        """Let go of a classifier whose scribbles are gone."""
        self.version += 1
        if not self.is_loaded:
            self.classifier, self.fingerprint = None, b""

    def _ask(
        self,
        target: ImageEntry,
        fingerprint: bytes,
        classifier: PixelClassifier | None,
        training: tuple[TrainingImage, ...] = (),
    ) -> PipelineInput:
        return PipelineInput(
            (target.snapshot(),),
            training=training,
            classifier=classifier,
            fingerprint=fingerprint,
            shown=target.key,
            version=self.version,
        )

    def _remembered(self, fingerprint: bytes) -> PixelClassifier | None:
        """Return an earlier fit; it shares the background sample of the last one."""
        known = self._fits.get(fingerprint)
        return known and known.light_copy(background_of=self.classifier)

    def _use(
        self, classifier: PixelClassifier, fingerprint: bytes, entry: ImageEntry
    ) -> None:
        self.classifier, self.fingerprint = classifier, fingerprint
        self.options = entry.options
        self.is_loaded = fingerprint == self._loaded_fingerprint
        if not self.is_loaded:
            self._fits.pop(fingerprint, None)  # the last one used is the last to go
            self._fits[fingerprint] = classifier.light_copy()
            while len(self._fits) > _REMEMBERED:
                del self._fits[next(iter(self._fits))]

    def _return_to_loaded(self) -> None:
        self.classifier, self.is_loaded = self._loaded, True
        self.fingerprint = self._loaded_fingerprint


def named(
    classifier: PixelClassifier | None,
    classes: Mapping[int, ClassInfo],
    pixel_size: PixelSize | None,
) -> PixelClassifier:
    """Return a copy with class names and colours, and the pixel size."""
    if classifier is None:
        raise ValueError(
            "There is no classifier yet: compute features and paint two classes first."
        )
    classifier = copy.copy(classifier)
    ids = [int(class_id) for class_id in classifier.classes]
    known = {class_id: classes[class_id] for class_id in ids if class_id in classes}
    classifier.class_names = {i: info.name for i, info in known.items()}
    classifier.class_colors = {i: info.color for i, info in known.items()}
    classifier.pixel_size = pixel_size
    return classifier


def seen_size(
    entry: ImageEntry, options: FeatureOptions | None = None
) -> PixelSize | None:
    """Return the side of the pixels that its features, or those of options, are of."""
    made = resolved(entry, options) if options else entry.options
    return made.pixel_size if made and made.pixel_ratio else entry.pixel_size


def size_note(
    entry: ImageEntry, trained: PixelSize | None, *, is_live: bool = False
) -> str:
    """Return that an image was resampled, or what to mind where it was not."""
    made, size = entry.options, entry.pixel_size
    if made is not None and made.pixel_ratio is not None:
        return magnification_note(made.pixel_size, size, resamples=True)
    is_unknown = size is None and not is_live
    return magnification_note(trained, size, resamples=is_unknown, is_live=is_live)


def normalisation_note(classifier: PixelClassifier) -> str:
    """Return what to mind where an image keeps its own grey levels, or ""."""
    kind = classifier.normalisation.kind
    if kind == "image":
        return ""
    return (
        f"It was trained with {kind} grey levels, and this image has its own here: "
        "Apply to many gives the result that counts."
    )


def magnification_note(
    trained: PixelSize | None,
    seen: PixelSize | None,
    *,
    resamples: bool = False,
    is_live: bool = False,
) -> str:
    """Return what to mind about an image of another magnification, or "".

    `resamples` says whether it is brought to that of the training where that goes,
    `is_live` that it is as it is on the screen.

    Examples
    --------
    >>> magnification_note((250.0, "nm"), (2.5, "µm"))
    'Its pixels are 10 times as large as those of the training (2.5 µm, 250 nm).'
    >>> magnification_note((250.0, "nm"), (0.3, "µm"))
    ''
    """
    ratios = pixel_ratio(seen, trained)
    if trained is None or seen is None or ratios is None:
        is_unknown = resamples and trained is not None and seen is None
        return "Its pixel size is not known; it was taken as it is." * is_unknown
    can_be = resampling_factors(ratios) is not None
    ratio = math.sqrt(math.prod(ratios))
    if 1 / _MAGNIFIED <= ratio <= _MAGNIFIED and not (resamples and can_be):
        return ""
    how = "as large as" if ratio > 1 else "smaller than"
    told = ", ".join(map(size_text, (seen, trained)))
    done = "; Apply to many brings it to them" * is_live
    done = (", and it was resampled to them" if resamples else done) * can_be
    times = f"{max(ratio, 1 / ratio):.3g} times {how}"
    return f"Its pixels are {times} those of the training ({told}){done}."


def options_for(classifier: PixelClassifier, options: FeatureOptions) -> FeatureOptions:
    """Return the options changed to those that a classifier was trained with."""
    if not classifier.part_options:
        return options
    wanted = FeatureOptions.of(classifier.part_options, options.device)
    size, resamples = classifier.pixel_size, options.resamples
    wanted = replace(wanted, pixel_size=size, resamples=resamples)
    if wanted.backbone == options.backbone:
        wanted = replace(wanted, weights=options.weights)
    words = replace(wanted, transforms="auto", interpolation="auto")
    if wanted.patch_size < 8 and wanted.difference(words) is None:
        return words  # so that what is chosen next has what suits it
    if wanted.patch_size > 1:
        method = wanted.interpolation.partition("@")[0]
        return replace(wanted, interpolation=method)
    # It ran once, on every pixel, whatever these say.
    return replace(
        wanted, transforms=options.transforms, interpolation=options.interpolation
    )


def _fingerprint_of_loaded(classifier: PixelClassifier) -> bytes:
    made = hashlib.blake2b(repr(classifier.part_options).encode(), digest_size=16)
    for array in (classifier.weight, classifier.bias, classifier.classes):
        made.update(array.tobytes())
    return made.digest()


def _scribbles_of(images: Sequence[ImageEntry]) -> bytes:
    """Return a fingerprint of scribbles, whichever features they lie on."""
    keys = (str(one.key).encode() + one.scribbles_fingerprint for one in images)
    return b"|".join(keys)
