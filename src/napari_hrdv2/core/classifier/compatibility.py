"""Whether features can be read by a classifier that was trained on others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.features.options import PartOptions

DIFFERENCES = (  # of part options, that a classifier can live with
    "transforms",
    "stride",
    "boundary",
    "interpolation",
    "compat",
    "debias",
    "partition",
    "planes",
)


def check_part_options(
    trained: Sequence[PartOptions], given: Sequence[PartOptions]
) -> None:
    """Raise ValueError for features of other backbones, warn of other differences.

    Another transform set, stride or upsampling makes features that are nearly alike.
    """
    if not trained or not given:
        return
    theirs, ours = (
        ", ".join(dict.fromkeys(p.channel for p in parts)) for parts in (trained, given)
    )
    if theirs != ours:
        raise ValueError(
            f"features: the classifier was trained on the channels {theirs or 'none'}, "
            f"and these are of {ours or 'none'}; choose those that it was trained on"
        )
    theirs, ours = ("+".join(p.backbone for p in parts) for parts in (trained, given))
    if theirs != ours:
        raise ValueError(
            f"features: the classifier was trained on {theirs} and cannot read "
            f"{ours}; compute {theirs} features or train again"
        )
    if reason := other_weights(trained, given):
        raise ValueError(reason)
    for former, now in zip(trained, given, strict=True):
        for name in DIFFERENCES:
            before, after = getattr(former, name), getattr(now, name)
            if before != after:
                warnings.warn(
                    f"the classifier was trained with {name} {before!r}, these "
                    f"features have {after!r}",
                    stacklevel=4,
                )


def check_alike(features: Sequence[Features]) -> None:
    """Raise ValueError unless the features of all images can train one classifier."""
    first = features[0]
    for other in features[1:]:
        check_part_options(first.part_options, other.part_options)
        if other.shape[0] != first.shape[0]:
            raise ValueError(
                f"features: {other.shape[0]} and {first.shape[0]} channels cannot "
                "train one classifier"
            )


def check_channels(
    trained: Sequence[PartOptions], known: int, features: Features
) -> None:
    """Raise ValueError unless features have as many channels as a classifier reads."""
    found = features.shape[0]
    if found != known:
        raise ValueError(
            other_channels(trained, features.part_options)
            or f"features: {found} channels do not fit a classifier that reads "
            f"{known} channels"
        )


def other_weights(trained: Sequence[PartOptions], given: Sequence[PartOptions]) -> str:
    """Return why features of the same backbones have other weights, or ""."""
    for former, now in zip(trained, given, strict=False):
        if former.backbone != now.backbone:
            break
        if former.weights_hash != now.weights_hash:
            return (
                f"features: the classifier was trained on {now.backbone} with weights "
                f"{former.weights_hash or '-'}, and these have weights "
                f"{now.weights_hash or '-'}; give the file that it was trained with "
                "(none, if they were the published ones), or train again"
            )
    return ""


def other_channels(trained: Sequence[PartOptions], given: Sequence[PartOptions]) -> str:
    """Return why features of the same backbones have other channels, or ""."""
    for former, now in zip(trained, given, strict=False):
        if former.backbone != now.backbone:
            break
        if former.planes != now.planes:
            return (
                f"features: the classifier was trained with planes {former.planes!r} "
                f"of a volume, and these have {now.planes!r}; use it on whole volumes, "
                "or train it again"
            )
        if now.channels == 2 * former.channels:
            return (
                f"features: {now.backbone} has context features now, and the "
                "classifier was trained without; train it again"
            )
        if now.channels != former.channels:
            return (
                f"features: {now.backbone} has {now.channels} channels on this image, "
                f"and {former.channels} where the classifier was trained, as grey and "
                "RGB images differ; use an image of the same kind or train it again"
            )
    return ""
