"""Which features are asked for, and what becomes of those that arrive."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from napari_hrdv2.session.cost import estimate_cost
from napari_hrdv2.session.feature_work import (
    FeatureRequest,
    FeatureResult,
    LoadedBackbone,
)

if TYPE_CHECKING:
    from napari_hrdv2.session.picture import Picture
    from napari_hrdv2.session.pictures import Pictures
    from napari_hrdv2.session.settings import FeatureSettings

logger = logging.getLogger(__name__)


class Featuring:
    """Features of the pictures: asked for, awaited and taken over."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._loaded: LoadedBackbone | None = None
        self._count = 0

    def request(self, picture: Picture, settings: FeatureSettings) -> FeatureRequest:
        """Return the request for features; an older one's answer will be dropped.

        Raises
        ------
        ValueError
            If there is not enough memory.
        """
        cost = estimate_cost(picture.image.shape, settings)
        if not cost.fits:
            raise ValueError(cost.refusal())
        self._count += 1
        picture.awaited = self._count
        return FeatureRequest(
            picture.key, self._count, picture.image, settings, self._loaded
        )

    def next_request(self, ahead: Iterable[str]) -> FeatureRequest | None:
        """Return a request for features like the current picture's, or None.

        Pictures that were painted on come first, then those with the keys `ahead`.
        """
        current = self._pictures.current
        if current is None or current.made_with is None:
            return None
        looked_ahead = (self._pictures.find(key) for key in ahead)
        for picture in (*self._pictures.painted(), *looked_ahead):
            if picture is None or picture.awaited:
                continue
            if self._pictures.is_usable(picture):
                continue
            if picture.features is not None and picture.made_with == current.made_with:
                continue  # colours where the others are grey: nothing will help
            try:
                return self.request(picture, current.made_with)
            except ValueError as error:
                logger.info("no features of %s: %s", picture.name, error)
        return None

    def accept(self, result: FeatureResult) -> Picture | None:
        """Take features over; return their picture, or None if nobody waits for them."""
        self._loaded = result.loaded
        picture = self._pictures.find(result.key)
        if picture is None or picture.awaited != result.generation:
            return None
        picture.awaited = 0
        picture.set_features(result.features, result.settings)
        self._pictures.changed.emit()
        return picture
