"""What images, label images and masks must be, and the form they are worked on in."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MUCH_CLIPPED = 0.05  # fraction of grey levels beyond the range that is worth a warning
NO_LEVEL = 1e30  # what programs fill holes with, in floats, is beyond
FEW_STRETCH = 50  # times that a few pixels widen the range
LEVELS = 500_000  # about as many pixels tell the range of its grey levels
MOST_CLASSES = 64  # more are objects that were numbered
_FULL_SCALES = (255, 65535)  # white in 8 and in 16 bit


def checked_labels(
    labels: ArrayLike, name: str = "labels", axes: int = 2
) -> NDArray[Any]:
    """Return an (H, W) array of ids from 0, or raise ValueError; or of 3 axes."""
    array = np.asarray(labels)
    if not 2 <= array.ndim <= axes or array.dtype.kind not in "ui":
        raise ValueError(
            f"{name}: shape {array.shape} of {array.dtype} is not a label image; an "
            f"(H, W) {'or (Z, Y, X) ' * (axes == 3)}array of integers is needed"
        )
    if array.size and array.min() < 0:
        raise ValueError(f"{name}: {array.min()} is not a label id; they start at 0")
    return array


def check_are_classes(name: str, ids: Iterable[int]) -> None:
    """Raise ValueError for more ids than there are classes."""
    found = [i for i in ids if i]
    if len(found) > MOST_CLASSES:
        raise ValueError(
            f"{name}: there are {len(found)} ids from {found[0]} to {found[-1]}, which "
            f"are objects rather than classes; up to {MOST_CLASSES} are possible"
        )


def spread_levels(labels: NDArray[Any]) -> NDArray[np.integer[Any]] | None:
    """Return the (K,) grey levels if the ids are 1…K, spread to be seen; else None.

    They are evenly spaced from 0 up to white: i times 255 / K to within rounding, or i
    times the whole part of that (127, 254); the same with 65535. One level has to be
    white itself. Ids 1…K are none.

    Examples
    --------
    >>> spread_levels(np.array([[0, 85, 170], [255, 255, 0]])).tolist()
    [85, 170, 255]
    >>> spread_levels(np.array([[0, 1, 2]])) is None
    True
    """
    levels = np.unique(labels[labels > 0]).astype(np.int64)
    count = len(levels)
    if not 1 <= count <= 128:  # 255 classes that are 1 apart are ids
        return None
    index = np.arange(1, count + 1)
    for full in _FULL_SCALES:
        exact = np.abs(levels - index * full / count) <= 1
        if exact.all() or (count > 1 and (levels == index * (full // count)).all()):
            return levels
    return None


def checked_mask(
    given: ArrayLike | None, shape: tuple[int, ...], name: str = "exclusion"
) -> NDArray[np.bool_] | None:
    """Return the mask, None for one that is nowhere set, or raise ValueError."""
    if given is None:
        return None
    mask = np.asarray(given, bool)
    if mask.shape != tuple(shape):
        raise ValueError(
            f"{name}: shape {mask.shape} does not fit an image of shape {tuple(shape)}"
        )
    return mask if mask.any() else None


def check_grey_or_rgb(name: str, image_channels: int) -> None:
    """Raise ValueError unless a backbone of that name can take so many channels."""
    if image_channels not in (1, 3):
        raise ValueError(
            f"image: {name} takes 1 (grey) or 3 (RGB) channels, not {image_channels}"
        )


def checked_partition(
    partition: ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return (H, W) region numbers of an image of that shape, or raise ValueError."""
    labels = np.asarray(partition)
    if labels.shape != tuple(shape) or labels.dtype.kind not in "biu":
        raise ValueError(
            f"partition: {labels.dtype} of shape {labels.shape} does not fit an image "
            f"of shape {tuple(shape)}; whole numbers of that shape are needed"
        )
    return labels.astype(np.int64)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is unknown; use {' or '.join(choices)}")


def one_each(
    name: str, given: Iterable[Any] | None, count: int, kind: str = "masks"
) -> list[Any]:
    """Return what is given for each image, None where nothing is; or ValueError."""
    found = list(() if given is None else given) or [None] * count
    if len(found) != count:
        raise ValueError(
            f"{name}: {len(found)} {kind} for {count} images; one for each is needed, "
            "or None"
        )
    return found


def check_whole(name: str, value: Any, least: int = 1, unit: str = "") -> None:
    """Raise ValueError unless the value is a whole number from `least` on."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise ValueError(f"{name}: {value!r} is not a whole number{unit} from {least}")


@dataclass(frozen=True)
class PreparedImage:
    """An image as the backbones take it: (C, H, W) float32, clipped to 0..1."""

    pixels: NDArray[np.float32]
    value_range: tuple[float, float]  # grey levels that became 0 and 1


def missing_pixels(image: ArrayLike) -> NDArray[np.bool_] | None:
    """Return where an image holds NaN or infinite values, (H, W) bool; None: nowhere.

    Examples
    --------
    >>> missing_pixels([[1.0, np.nan], [0.0, 2.0]]).astype(int)
    array([[0, 1],
           [0, 0]])
    """
    array = np.asarray(image)
    if array.dtype.kind != "f":
        return None
    finite = np.isfinite(array)
    missing = ~(finite if array.ndim == 2 else finite.all(axis=2))
    return missing if missing.any() else None


def with_missing(
    mask: NDArray[np.bool_] | None, image: ArrayLike
) -> NDArray[np.bool_] | None:
    """Return an (H, W) mask that covers the missing pixels, too; None: nothing."""
    missing = missing_pixels(image)
    if mask is None or missing is None:
        return missing if mask is None else mask
    return mask | missing


def filled(image: ArrayLike) -> NDArray[Any]:
    """Return the image with its median where pixels are missing; all stays if all are.

    Examples
    --------
    >>> filled([[1.0, np.nan], [5.0, 2.0]]).tolist()
    [[1.0, 2.0], [5.0, 2.0]]
    """
    array, missing = np.asarray(image), missing_pixels(image)
    if missing is None or missing.all():
        return array
    array = array.copy()
    array[missing] = np.median(array[~missing], axis=0)
    return array


def prepare_image(
    image: ArrayLike,
    *,
    channel_axis: int | None = None,
    value_range: tuple[float, float] | None = None,
    warn: bool = True,
) -> PreparedImage:
    """Return the image as (C, H, W) float32 in 0..1 with the range that was mapped.

    Parameters
    ----------
    image : (H, W), (H, W, 3), (H, W, 4) or, with `channel_axis`, any 3-D array
        bool, integer or float grey levels. An alpha channel is dropped.
    value_range : tuple of two float, optional
        Grey levels to map to 0 and 1. By default the full range of bool and uint8,
        and 0..1 for floats that lie in it; else the image's own minimum and maximum,
        with a warning, because images scaled each by itself cannot be compared.
    warn : bool
        False where that makes no difference.
    """
    array = np.asarray(image)
    planes = channels_first(array, channel_axis)
    if planes.size == 0:
        raise ValueError(f"image: shape {array.shape} holds no pixels")
    low, high = _value_range(planes, value_range, warn=warn)
    pixels = _scaled(planes, low, high)
    if value_range is not None:
        _check_clipping(pixels, (low, high))
    np.clip(pixels, 0, 1, out=pixels)
    return PreparedImage(pixels, (low, high))


def prepared_part(
    part: NDArray[Any], value_range: tuple[float, float]
) -> NDArray[np.float32]:
    """Return a part of an image as `prepare_image` does, once the range is known."""
    pixels = _scaled(channels_first(part), *value_range)
    return np.clip(pixels, 0, 1, out=pixels)


def bands_of(image: Any, names: Sequence[str], axis: int | None = None) -> list[Any]:
    """Return the (H, W) channels of an image, one for each name; for none, itself."""
    if not names:
        return [image]
    array, axis = np.asarray(image), -1 if axis is None else axis
    sizes = dict(zip((0, 1, 2, -3, -2, -1), 2 * array.shape, strict=False))
    if array.ndim != 3 or not sizes.get(axis) == len(names) == len(set(names)):
        raise ValueError(
            f"channels: {', '.join(names)} do not fit an image of shape {array.shape}; "
            f"give each name once, and (H, W, {len(names)})"
        )
    return list(np.moveaxis(array, axis, 0))


def _scaled(planes: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    # float32 holds 8 and 16 bit exactly; of wider numbers it would drop the contrast.
    wide = planes.dtype.itemsize > 2 and planes.dtype != np.float32
    scaled = planes.astype(np.float64 if wide else np.float32)
    with np.errstate(over="ignore"):  # fill values are clipped later
        np.subtract(scaled, low, out=scaled)
        np.divide(scaled, high - low, out=scaled)
        return scaled.astype(np.float32, copy=False)


def channels_first(
    array: NDArray[Any], channel_axis: int | None = None
) -> NDArray[Any]:
    """Return an image as (C, H, W), without alpha; raise ValueError or TypeError."""
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"image: dtype {array.dtype} is not a grey level or colour; "
            "give bool, integer or float values"
        )
    if channel_axis is not None:
        if array.ndim != 3 or not -3 <= channel_axis < 3:
            raise ValueError(
                f"channel_axis: {channel_axis} does not fit an image of shape "
                f"{array.shape}; a 3-D array with one channel axis is needed"
            )
        return np.moveaxis(array, channel_axis, 0)
    if array.ndim == 2:
        return array[np.newaxis]
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return np.moveaxis(array[..., :3], 2, 0)
    raise ValueError(
        f"image: shape {array.shape} is not one micrograph; give (H, W), (H, W, 3), "
        "(H, W, 4) or a 3-D array with channel_axis"
    )


def _value_range(
    planes: NDArray[Any], value_range: tuple[float, float] | None, *, warn: bool
) -> tuple[float, float]:
    low, high = float(planes.min()), float(planes.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(planes.size - np.isfinite(planes).sum())
        raise ValueError(
            f"image: {bad} of {planes.size} values are NaN or infinite; replace them "
            "first, for instance with numpy.nan_to_num"
        )
    if low == high and value_range is None:
        raise ValueError(
            f"image: every pixel has the value {low:g}; an image with contrast is "
            "needed"
        )
    if value_range is not None:
        return checked_range(value_range)
    if planes.dtype.kind == "f" and max(-low, high) >= NO_LEVEL:
        low, high = _range_of_levels(planes)
        warn = False  # told already
    elif planes.dtype.itemsize > 1:
        _tell_outliers(planes, low, high)
    if planes.dtype == np.uint8:
        return 0.0, 255.0
    if planes.dtype == np.bool_ or (planes.dtype.kind == "f" and 0 <= low < high <= 1):
        return 0.0, 1.0
    if not warn:
        return low, high
    warnings.warn(
        f"{planes.dtype} grey levels are scaled by this image's own range "
        f"{low:g}..{high:g}; give value_range=(low, high) to treat all images alike",
        stacklevel=4,
    )
    return low, high


def _range_of_levels(planes: NDArray[Any]) -> tuple[float, float]:
    """Return smallest and largest grey level without what stands for none."""
    is_level = np.abs(planes) < NO_LEVEL
    beyond = f"{1 - float(is_level.mean()):.1%} of the values are beyond ±{NO_LEVEL:g}"
    levels = planes[is_level]
    if not levels.size or levels.min() == levels.max():
        raise ValueError(
            f"image: {beyond} and the others are all the same; an image with contrast "
            "is needed"
        )
    low, high = float(levels.min()), float(levels.max())
    warnings.warn(
        f"{beyond} and stand for no grey level; they are clipped to "
        f"{low:g}..{high:g}: leave those pixels out",
        stacklevel=5,
    )
    return low, high


def _tell_outliers(planes: NDArray[Any], low: float, high: float) -> None:
    """Say so when a few pixels stretch the range that grey levels are mapped from."""
    levels = planes.ravel()[:: max(1, planes.size // LEVELS)].astype(np.float64)
    first, last = np.percentile(levels, (1, 99))
    if last > first and high - low > FEW_STRETCH * (last - first):
        outside = float(((planes < first) | (planes > last)).mean())
        warnings.warn(
            f"{outside:.2%} of the grey levels stretch the range {low:g}..{high:g}, of "
            f"which the others take {first:g}..{last:g}; hot pixels or fill values "
            "make the rest look flat: correct them, or give value_range",
            stacklevel=5,
        )


def _check_clipping(
    pixels: NDArray[np.float32], value_range: tuple[float, float]
) -> None:
    """Say so when much of an image lies outside the range it is mapped from."""
    outside = float(((pixels < 0) | (pixels > 1)).mean())
    if outside == 1:
        raise ValueError(
            f"value_range: no grey level of the image lies within {value_range}; give "
            "the range that its own levels span"
        )
    if outside > MUCH_CLIPPED:
        warnings.warn(
            f"{outside:.0%} of the grey levels lie outside value_range {value_range} "
            "and are clipped",
            stacklevel=4,
        )


def checked_range(value_range: tuple[float, float]) -> tuple[float, float]:
    """Return the range as two floats, or raise ValueError."""
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            f"value_range: {value_range} is not a range; give (low, high) with "
            "low < high"
        )
    return low, high


def has_colors(image: NDArray[Any]) -> bool:
    """Return whether red, green and blue differ; all missing, they do not."""
    colors, red = image[..., 1:3], image[..., :1]
    differ = colors != red
    if image.dtype.kind == "f" and differ.any():
        differ &= ~(np.isnan(colors) & np.isnan(red))
    return bool(differ.any())


def grey_if_equal(image: NDArray[Any]) -> NDArray[Any]:
    """Return the grey levels of an RGB(A) image without any colour, else the image.

    Examples
    --------
    >>> grey_if_equal(np.ones((5, 7, 3))).shape
    (5, 7)
    >>> grey_if_equal(np.arange(105).reshape(5, 7, 3)).shape
    (5, 7, 3)
    """
    if image.ndim != 3 or image.shape[-1] not in (3, 4):
        return image
    if has_colors(image[:64]) or has_colors(image):  # most of them at once
        return image
    return np.ascontiguousarray(image[..., 0])
