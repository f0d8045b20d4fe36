"""How a classifier reads an image: whose grey levels, adapted how, how doubtful.

Another detector or mode of a microscope shows dark what was light. No gain brings one
to the other, and a classifier that takes one material for another is sure of itself. So
light and dark are exchanged, too, where levels are matched, and what tells better is
taken: by how likely the grey levels are, and by the doubt about the image either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.features.normalisation import WINDOW, Levels, Match, mosaic

from .doubt import doubt_of

if TYPE_CHECKING:
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.normalisation import Normalisation
    from napari_hrdv2.core.features.tiles import Region

    from .pixel_classifier import PixelClassifier

# Of a logistic regression for whether light and dark are exchanged, fitted to 520
# generated images and their negatives; without a constant, as both are alike.
LIKELIHOOD, DOUBT = 0.41, 1.65
MOST_LEAD = 6.0  # of the log-likelihoods: as it is beyond doubt, or counts for no more
PRIOR, PRIOR_IMAGES = (
    0.05,
    10,
)  # of exchanged ones before an image is seen, and its weight
LEAST_PROBABILITY = 1e-4  # so that odds are numbers

Compute = Callable[[Any, Levels | None], "Features"]


@dataclass(frozen=True, eq=False)
class Reading:
    """An image as a classifier sees it.

    `classifier` reads the `features`: that which was given, adapted to the image where
    it is of a series. `doubt` is None where nothing tells, and of images that it was
    trained on; `is_inverted` says whether light and dark were exchanged for it.
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
    should_stop : callable, optional
        Ends it by returning True; `Cancelled` is raised.
    """
    normalisation = classifier.normalisation
    if normalisation.knows(image):
        levels = normalisation.levels_for(image)
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
    levels, wrong = levels_of(classifier, image, once, windows=windows, **about)
    features = once(image, levels)
    adapted = classifier.adapted_to(features, **about)
    doubt = doubt_of(classifier, adapted, features, **about)
    return Reading(
        features,
        classifier if normalisation.kind == "image" else adapted,
        None if doubt is None else 1 - (1 - doubt) * (1 - wrong),
        is_inverted=levels is not None and levels[1] < 0,
    )


def levels_of(
    classifier: PixelClassifier,
    image: Any,
    compute: Compute,
    *,
    exclusion: Any = None,
    windows: list[Region] | None = None,
    should_stop: Stop = None,
) -> tuple[Levels | None, float]:
    """Return levels of an image that was not labelled, and how probably they are wrong.

    Wrong means that light and dark should be exchanged. Parameters are as for
    `read_image`.

    Notes
    -----
    With the log-likelihoods l and l' of the image's grey levels as they are and
    exchanged, and the doubt d and d' of the middle of the image, the log of the odds
    that they should be exchanged is that before the image is seen, less
    0.41 (l - l') [from -6 to 6] + 1.65 (logit d' - logit d). Above 6, features are not
    computed for it.
    """
    normalisation = classifier.normalisation
    exclusion = None if exclusion is None else np.asarray(exclusion, bool)
    seen = image, exclusion
    if windows is not None:
        seen = mosaic(image, windows), mosaic(exclusion, windows)
    straight = normalisation.match(*seen)
    if not _may_be_inverted(classifier, image, straight):
        return straight.levels, 0.0
    inverted = normalisation.match(*seen, inverted=True)
    lead = straight.likelihood - inverted.likelihood
    if lead > MOST_LEAD:
        return straight.levels, 0.0
    middle = _middle_of(image.shape)
    mask = None if exclusion is None else exclusion[middle]
    is_all = max(image.shape[:2]) <= WINDOW
    part, odds = image if is_all else np.asarray(image[middle]), []
    for match in (straight, inverted):
        features = compute(part, match.levels)
        about: dict[str, Any] = {"exclusion": mask, "should_stop": should_stop}
        adapted = classifier.adapted_to(features, **about)
        doubt = doubt_of(classifier, adapted, features, **about)
        if doubt is None:
            return straight.levels, 0.0
        odds.append(_log_odds(doubt))
    for_straight = LIKELIHOOD * max(lead, -MOST_LEAD) + DOUBT * (odds[1] - odds[0])
    against = for_straight - _log_odds(_prior(normalisation))
    probability = 1 / (1 + math.exp(against))
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


def _middle_of(shape: tuple[int, ...]) -> Region:
    rows, columns = (
        slice(max(0, (n - WINDOW) // 2), (n + WINDOW) // 2) for n in shape[:2]
    )
    return rows, columns
