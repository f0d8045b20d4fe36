"""From samples as a file stores them to grey levels or RGB, the right way up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ORIENTATION = 0x0112  # the tag of EXIF and TIFF
TURNS = {
    1: "",
    2: "mirrored left to right",
    3: "turned by 180°",
    4: "mirrored top to bottom",
    5: "mirrored along its diagonal",
    6: "turned by 90° to the right",
    7: "mirrored along its other diagonal",
    8: "turned by 90° to the left",
}
"""What the orientations of EXIF and TIFF ask for."""


def turned(data: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return (H, W, ...) samples as they are to be seen.

    Examples
    --------
    >>> turned(np.array([[1, 2, 3]]), 3).tolist()
    [[3, 2, 1]]
    >>> turned(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    if orientation >= 5:
        data = data.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else None)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else None)
    return np.ascontiguousarray(data[rows, columns])


def grey_if_grey(colors: NDArray[Any]) -> NDArray[Any]:
    """One plane where red, green and blue are the same in every pixel."""
    red = colors[..., :1]
    return colors[..., 0] if (colors[..., 1:3] == red).all() else colors


def rgb_of_cmyk(samples: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, 3) of (H, W, 4) amounts of ink, as Pillow does for JPEG."""
    full = np.iinfo(samples.dtype).max
    light: NDArray[Any] = samples.astype(np.float64 if full > 2**16 else np.float32)
    np.subtract(full, light, out=light)
    colors: NDArray[Any] = np.rint(light[..., :3] * light[..., 3:] / full)
    return colors.astype(samples.dtype)


def rgb_of(samples: NDArray[np.uint8], mode: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) of 8-bit samples of one of Pillow's modes, YCbCr or LAB."""
    from PIL import Image

    height, width = samples.shape[:2]
    raw = np.ascontiguousarray(samples[..., :3]).tobytes()
    entry = Image.frombytes(mode, (width, height), raw, "raw", mode)
    return np.asarray(entry.convert("RGB"))
