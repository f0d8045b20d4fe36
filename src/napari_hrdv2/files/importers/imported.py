"""What labels from another program's file come as, and what their readers share."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_hrdv2.files.labels import LabelClasses


@dataclass(frozen=True)
class ImportedLabels:
    """Labels as they are painted here: 0 where nothing is, else a class.

    Attributes
    ----------
    labels : (H, W) array of uint8, uint16 or uint32
    classes : LabelClasses
        Names and colours, as far as the file has them.
    note : str
        A sentence on what was read and what was changed or left out.
    """

    labels: NDArray[np.unsignedinteger[Any]]
    classes: LabelClasses
    note: str


def optional_module(name: str, purpose: str) -> Any:
    """Import a module of the extra "interop", or say how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {name}; install it with "
            'pip install "napari-hrdv2[interop]"'
        ) from error


def check_size(
    path: Path, found: tuple[int, ...], wanted: tuple[int, int] | None
) -> None:
    """Raise ValueError unless labels are of the size of the image."""
    if wanted is None or tuple(found) == tuple(wanted):
        return
    hint = "labels of this very image are needed"
    if tuple(found) == tuple(wanted)[::-1]:
        hint = "rows and columns seem to be exchanged"
    raise ValueError(
        f"labels: {path} is {size_text(found)} and the image {size_text(wanted)} "
        f"(width × height); {hint}"
    )


def size_text(shape: tuple[int, ...]) -> str:
    """Width × height of (H, W)."""
    return " × ".join(str(length) for length in reversed(shape))


def narrow(labels: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Return label ids in the smallest unsigned integers that hold them."""
    return labels.astype(np.min_scalar_type(int(labels.max(initial=0))))


def count_text(count: int, one: str, many: str = "") -> str:
    """Return "1 class", "2 classes"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
