"""The computations behind a request: pure functions that a worker thread may run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import numpy as np

from napari_hrdv2.session.requests import (
    FeatureRequest,
    FeatureResult,
    LoadedBackbone,
    Progress,
    TrainRequest,
    TrainResult,
)
from napari_hrdv2.session.settings import FeatureSettings, stride_in_pixels

ShouldStop = Callable[[], bool]

# A stroke is answered at once rather than to the last digit; about 99 % of pixels come
# out as after a full fit, where classes are hard to tell apart.
LIVE_TOLERANCE = 1e-4


def compute(
    request: FeatureRequest | TrainRequest,
    *,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> FeatureResult | TrainResult:
    """Return the answer to a request.

    Parameters
    ----------
    request : FeatureRequest or TrainRequest
    progress : callable, optional
        Called as ``progress(stage, done, total)``, in the calling thread.
    should_stop : callable, optional
        Asked often; when it returns True the work ends with `Cancelled`.

    Raises
    ------
    Cancelled
        If `should_stop` said so.
    ValueError, OSError
        If the image, the settings or the labels do not allow it, in one sentence.
    """
    if isinstance(request, TrainRequest):
        return _train(request)
    return _compute_features(request, progress or _ignore, should_stop or _never)


def _compute_features(
    request: FeatureRequest, progress: Progress, should_stop: ShouldStop
) -> FeatureResult:
    from napari_hrdv2.core.compute import compute_features

    settings = request.settings
    loaded = request.loaded
    if loaded is None or not loaded.serves(settings):
        loaded = _load(settings, progress, should_stop)
    features = compute_features(
        request.image,
        loaded.backbone,
        settings.transforms,
        stride_in_pixels(settings),
        partial(progress, "Computing features"),
        should_stop,
        value_range=settings.value_range,
        interpolation=settings.interpolation,
        debias=settings.debias,
    )
    return FeatureResult(request.generation, features, settings, loaded)


def _load(
    settings: FeatureSettings, progress: Progress, should_stop: ShouldStop
) -> LoadedBackbone:
    from napari_hrdv2.core.backbones import load_backbone
    from napari_hrdv2.core.errors import Cancelled

    def download_progress(done: int, total: int) -> None:
        if should_stop():
            raise Cancelled
        progress("Loading weights", done, total)

    download_progress(0, 0)
    backbone = load_backbone(
        settings.backbone,
        weights=settings.weights,
        device=settings.device,
        progress=download_progress,
    )
    return LoadedBackbone(
        settings.backbone, settings.weights, settings.device, backbone
    )


def _train(request: TrainRequest) -> TrainResult:
    from napari_hrdv2.core.classifier import PixelClassifier

    # A copy, so that the classifier in use never changes under its owner.
    classifier = copy.copy(request.classifier) or PixelClassifier(
        tolerance=LIVE_TOLERANCE
    )
    if request.labels is not None:
        classifier.fit(request.features, request.labels, samples=request.samples)
    segmentation = classifier.predict(request.features)
    counts = np.bincount(segmentation.ravel()) / segmentation.size
    fractions = {i: float(counts[i]) for i in np.flatnonzero(counts).tolist()}
    return TrainResult(
        request.generation, request.digest, classifier, segmentation, fractions
    )


def _ignore(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


def _never() -> bool:
    return False
