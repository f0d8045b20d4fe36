"""What is said of micrographs on the command line: their pixel size, and exclusions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from napari_hrdv2.core.postprocess.exclusion import (
    SharedExclusion,
    find_databar,
    unasked_databar,
)
from napari_hrdv2.files import read_image, size_text
from napari_hrdv2.files.units import length_of

from .shared import Report

Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Exclude a rectangle, as a databar (rows and columns from and to, counted "
        "from 0 at the top left), where a mask is not 0, or the databar that is found "
        "in the first image; of images of one size.",
        metavar="TOP,LEFT,BOTTOM,RIGHT|MASK|databar",
    ),
]
DATABAR = "databar"
PixelSize = Annotated[
    str | None,
    typer.Option(
        help="Side of a pixel, as 250nm or 0.25um, in place of what files say.",
        metavar="SIZE",
    ),
]


def parse_pixel_size(text: str | None) -> tuple[float, str] | None:
    """Return number and unit of --pixel-size."""
    try:
        return None if text is None else length_of(text)
    except ValueError as error:
        raise ValueError(f"--pixel-size: {str(error).partition(': ')[2]}") from error


def first_image(files: Sequence[Path], channels: str = "") -> Any:
    """Return the array that rectangles are of: the first that can be opened."""
    from napari_hrdv2.files.volumes import first_plane, open_stack

    for path in files:
        try:
            return first_plane(open_stack(path, channels).data)
        except Exception:  # noqa: BLE001 - told when it is segmented
            continue
    raise ValueError(f"{files[0]}: none of {len(files)} images can be read")


def exclusion_of(options: Sequence[str] | None, image: Any) -> SharedExclusion | None:
    """Return what --exclude excludes of images of a size."""
    if not options:
        return None
    shape = image.shape[:2]
    excluded = np.zeros(shape, bool)
    for text in options:
        if text == DATABAR:
            found = find_databar(image)
            if found is None:
                raise ValueError(
                    f"--exclude: no databar was found in the image of "
                    f"{size_text(shape)} pixels; give TOP,LEFT,BOTTOM,RIGHT"
                )
            excluded[found[0] :] = True
            continue
        numbers = re.fullmatch(r"\s*(\d+)" + r"\s*,\s*(\d+)" * 3 + r"\s*", text)
        if numbers is None:
            excluded |= _mask(Path(text), shape)
            continue
        top, left, bottom, right = map(int, numbers.groups())
        if not (top < bottom <= shape[0] and left < right <= shape[1]):
            raise ValueError(
                f"--exclude: {text} is no rectangle within {size_text(shape)} pixels "
                "(width × height); give TOP,LEFT,BOTTOM,RIGHT with rows and columns "
                "from 0, the last two being the first beyond it"
            )
        excluded[top:bottom, left:right] = True
    if excluded.all():
        raise ValueError("--exclude: this would leave nothing of the image")
    return SharedExclusion.of(excluded)


def offer_databar(
    options: Sequence[str] | None, files: Sequence[Path], report: Report
) -> None:
    """Say that there is a databar to exclude, where nothing is excluded."""
    with suppress(ValueError):  # of files that cannot be read: told later
        if not options and (found := unasked_databar(first_image(files))):
            rows = f"rows {found[0]} to {found[2] - 1}"
            report.say(f"a databar was found ({rows}): --exclude databar leaves it out")


def _mask(path: Path, shape: tuple[int, int]) -> NDArray[Any]:
    if not path.exists():
        raise ValueError(
            f"--exclude: {path} is neither a file nor TOP,LEFT,BOTTOM,RIGHT in pixels"
        )
    try:
        mask = read_image(path).data
    except (OSError, ValueError) as error:
        raise ValueError(f"--exclude: {error}") from error
    if mask.shape[:2] != shape:
        raise ValueError(
            f"--exclude: {path} is {size_text(mask.shape[:2])} and the image "
            f"{size_text(shape)} (width × height); give a mask of this size"
        )
    found: NDArray[Any] = mask[..., None] if mask.ndim == 2 else mask[..., :3]
    return np.asarray((found != 0).any(axis=-1))
