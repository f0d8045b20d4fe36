"""Reading an image of a series: its grey levels, the adapted classifier, and doubt.

Another detector or mode of a microscope shows dark what was light. No gain brings one
to the other, and a classifier that takes one material for another is sure of itself. So
where levels are matched, the negative of an image is looked at, too. How likely the
grey levels are, and the doubt about the image either way, tell which is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import filled, with_missing
from napari_hrdv2.core.features.levels import WINDOW, Levels, grey_plane, mosaic
from napari_hrdv2.core.features.resampled import compute_resampled

from .doubt import doubt_of

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.normalisation import Match, Normalisation
    from napari_hrdv2.core.features.tiles import Region

# Of a logistic regression for whether light and dark are exchanged, fitted to 520
# generated images and their negatives; without a constant, as both are alike.
LIKELIHOOD, DOUBT = 0.41, 1.65
MOST_LEAD = 6.0  # of a log-likelihood: a larger one for the image as it is decides
PRIOR = 0.05  # share of negatives, before the image is seen
PRIOR_IMAGES = 10  # that it is known from; the labelled ones count, too
LEAST_PROBABILITY = 1e-4  # so that odds are numbers
LEAST_SEEN = 0.5  # of a window, that is not excluded

Compute = Callable[[Any, Levels | None], "Features"]


@dataclass(frozen=True, eq=False)
class Reading:
    """An image as a classifier sees it.

    `classifier` reads the `features`: that which was given, adapted to the image where
    it is of a series. `doubt` is how probable a mean IoU below 0.5 is; None where
    nothing tells, and of labelled images. `is_inverted` says whether light and dark
    were exchanged for it.
    """

    features: Features
    classifier: PixelClassifier
    doubt: float | None = None
    is_inverted: bool = False

    def predict(self, *, should_stop: Stop = None) -> NDArray[Any]:
        """Return the label id of every pixel, (H, W)."""
        return self.classifier.predict(self.features, should_stop=should_stop)


def read_image(
    classifier: PixelClassifier,
    image: Any,
    compute: Compute,
    *,
    exclusion: Any = None,
    windows: list[Region] | None = None,
    exchanges: bool = True,
    should_stop: Stop = None,
) -> Reading:
    """Return an image as a classifier sees it.

    Parameters
    ----------
    classifier : PixelClassifier
    image : (H, W) or (H, W, 3|4) array, or what is read like one
    compute : callable
        ``compute(image, levels)`` returns the features of the image, or of a part of
        it, with these grey levels; None for its own.
    exclusion : (H, W) bool array, optional
        Where the image shows no material.
    windows : list of tuples of two slices, optional
        Where its grey levels are looked at; all over by default.
    exchanges : bool
        Whether light and dark may be exchanged, where levels are matched.
    should_stop : callable, optional
        Ends it by returning True; `Cancelled` is raised.
    """
    is_labelled, levels = classifier.normalisation.known_levels(image)
    if is_labelled:
        is_inverted = levels is not None and levels[1] < 0
        return Reading(compute(image, levels), classifier, is_inverted=is_inverted)
    seen: dict[Levels | None, Features] = {}

    def once(part: Any, levels: Levels | None) -> Features:
        if part is not image:
            return compute(part, levels)
        if levels not in seen:
            seen[levels] = compute(image, levels)
        return seen[levels]

    about: dict[str, Any] = {"exclusion": exclusion, "should_stop": should_stop}
    levels, wrong = levels_of(
        classifier, image, once, windows=windows, exchanges=exchanges, **about
    )
    features = once(image, levels)
    adapted = classifier.adapted_to(features, **about)
    doubt = doubt_of(classifier, adapted, features, **about)
    return Reading(
        features,
        classifier if classifier.normalisation.kind == "image" else adapted,
        None if doubt is None else 1 - (1 - doubt) * (1 - wrong),
        is_inverted=levels is not None and levels[1] < 0,
    )


def reading_of(
    classifier: PixelClassifier,
    image: ArrayLike,
    backbone: Backbone | JoinedBackbone,
    *,
    exclusion: ArrayLike | None = None,
    pixel_ratio: tuple[float, float] | None = None,
    **options: Any,
) -> Reading:
    """Return an image as a classifier of a series sees it, and how doubtful that is.

    Parameters
    ----------
    classifier : PixelClassifier
        Of `train_series`, or what was saved of it.
    image : (H, W) or (H, W, 3|4) array
    backbone : Backbone
        The one that it was trained with.
    exclusion : (H, W) bool array, optional
        Where the image shows no material.
    pixel_ratio : tuple of two float, optional
        How many times as high and wide its pixels are as those that it is to be seen
        with; see `resampling_factors`.
    options
        The other ones of :func:`~napari_hrdv2.compute_features`.

    Returns
    -------
    Reading
        The features with the grey levels that the classifier's `normalisation` asks
        for, and the classifier adapted to the image, unless it was trained on it or its
        images keep their own grey levels.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    ValueError
        If the features are not like those that the classifier was trained on.

    Examples
    --------
    >>> import napari_hrdv2 as hr
    >>> image = np.kron(np.eye(4), np.ones((16, 16)))
    >>> labels = np.zeros((64, 64), int)
    >>> labels[2:14, 2:14], labels[2:14, 20:60] = 1, 2
    >>> backbone = hr.load_backbone("embedded")
    >>> trained = hr.train_series([image], [labels], backbone)
    >>> read = hr.reading_of(trained.classifier, image.T[::-1], backbone)
    >>> read.predict().shape, 0 <= read.doubt <= 1
    ((64, 64), True)
    """
    whole, stop = np.asarray(image), options.get("should_stop")

    def compute(part: NDArray[Any], levels: Levels | None) -> Features:
        about = options if part is whole else {**options, "progress": None}
        return compute_resampled(part, backbone, pixel_ratio, levels=levels, **about)

    about: dict[str, Any] = {"exclusion": exclusion, "should_stop": stop}
    return read_image(classifier, whole, compute, **about)


def levels_of(
    classifier: PixelClassifier,
    image: Any,
    compute: Compute,
    *,
    exclusion: Any = None,
    windows: list[Region] | None = None,
    exchanges: bool = True,
    should_stop: Stop = None,
) -> tuple[Levels | None, float]:
    """Return levels of an image that was not labelled, and how probably they are wrong.

    Wrong means that light and dark should be exchanged, or should not. Parameters are
    as for `read_image`.

    Notes
    -----
    With the log-likelihoods l and l' of the image's grey levels as they are and
    exchanged, and the doubt d and d' of a window of the image, the log of the odds that
    they should be exchanged is that before the image is seen, less
    0.41 (l - l') [from -6 to 6] + 1.65 (logit d' - logit d). Above 6, features are not
    computed for it; where no window tells, doubt counts for nothing.
    """
    normalisation = classifier.normalisation
    exclusion = None if exclusion is None else np.asarray(exclusion, bool)
    seen = image, exclusion
    if windows is not None:
        seen = mosaic(image, windows), mosaic(exclusion, windows)
    straight = normalisation.match(*seen)
    if not (exchanges and _may_be_inverted(classifier, image, straight)):
        return straight.levels, 0.0
    inverted = normalisation.match(*seen, inverted=True)
    lead = straight.likelihood - inverted.likelihood
    if lead > MOST_LEAD:
        return straight.levels, 0.0
    for_straight = LIKELIHOOD * max(lead, -MOST_LEAD) - _log_odds(_prior(normalisation))
    window = _window_of(image, exclusion)
    if window is not None:
        part, mask = image, exclusion
        if max(image.shape[:2]) > WINDOW:
            part = np.asarray(image[window])
            mask = with_missing(None if mask is None else mask[window], part)
            part = filled(part)
        about: dict[str, Any] = {"exclusion": mask, "should_stop": should_stop}
        for match, sign in ((straight, -1), (inverted, 1)):
            features = compute(part, match.levels)
            adapted = classifier.adapted_to(features, **about)
            doubt = doubt_of(classifier, adapted, features, **about)
            for_straight += sign * DOUBT * _log_odds(0.5 if doubt is None else doubt)
    probability = 1 / (1 + math.exp(for_straight))
    if probability > 0.5:
        return inverted.levels, 1 - probability
    return straight.levels, probability


def _may_be_inverted(classifier: PixelClassifier, image: Any, straight: Match) -> bool:
    return (
        not math.isnan(straight.likelihood)
        and classifier.trained_on is not None
        and not any(part.absolute_levels for part in classifier.part_options)
        and not hasattr(image, "volume_shape")
    )


def _prior(normalisation: Normalisation) -> float:
    """Return how probable it is before the image is seen, by the labelled ones."""
    known = [levels is not None and levels[1] < 0 for _, levels in normalisation.known]
    return (sum(known) + PRIOR * PRIOR_IMAGES) / (len(known) + PRIOR_IMAGES)


def _log_odds(probability: float) -> float:
    known = min(max(probability, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)
    return math.log(known / (1 - known))


def _window_of(image: Any, exclusion: NDArray[np.bool_] | None) -> Region | None:
    """Return a window with something to see, the middle one if it has."""
    rests = [max(0, n - WINDOW) for n in image.shape[:2]]
    tops, lefts = ((rest // 2, 0, rest) for rest in rests)
    for top, left in product(tops, lefts):
        window = slice(top, top + WINDOW), slice(left, left + WINDOW)
        grey = grey_plane(image[window])
        kept = np.isfinite(grey)
        if exclusion is not None:
            kept &= ~exclusion[window]
        values = grey[kept]
        if len(values) >= LEAST_SEEN * grey.size and values.min() < values.max():
            return window
    return None
