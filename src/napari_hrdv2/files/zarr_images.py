"""Zarr: an image in a folder of chunks, with its levels and its pixel size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import JSON_BYTES, check_claim

from .lazy import LazyImage
from .reading import (
    JOINED,
    NotReadError,
    channel_names,
    channels_by_name,
    damaged,
    told,
)
from .units import Size, size_of, unit_symbol


def open_zarr(
    path: Path, channels: str = ""
) -> tuple[LazyImage, tuple[Size, str] | None]:
    """Return the image of an OME-Zarr, or an array of Zarr, without reading it.

    Beside it, the pixel size. All levels of the OME-Zarr are known. `channels` are the
    names of those that become its bands, as in "BSE,Fe".
    """
    with told(path):
        node = opened(path)
        stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if hasattr(node, "shape"):
            return _lazy(path, node, [], [], stored, channels), None
        about = metadata(node)
        if "multiscales" not in about:
            inside = ", ".join(sorted(name for name, _ in node.arrays())[:5])
            hint = f"name an array in it ({inside})" if inside else "it has no array"
            raise NotReadError(f"{path} is Zarr, but no image of OME-Zarr; {hint}")
        scales = about["multiscales"][0]
        axes = [a["name"] if isinstance(a, Mapping) else a for a in scales["axes"]]
        labels = [
            one.get("label") for one in about.get("omero", {}).get("channels", ())
        ]
        first, *smaller = [
            _lazy(path, node[one["path"]], axes, labels, stored, channels)
            for one in scales["datasets"]
        ]
        first.levels = tuple(smaller)
        return first, pixel_size(about)


def _lazy(
    path: Path, array: Any, axes: list[str], labels: list[Any], stored: int, wanted: str
) -> LazyImage:
    """Return an array of Zarr as an image; NotReadError where it is a stack."""
    shape = tuple(array.shape)
    if np.dtype(array.dtype).kind not in "buif" or array.ndim < 2:
        raise ValueError(f"an array of {array.dtype} with {array.ndim} axes")
    if len(axes) != array.ndim:
        bands = array.ndim == 3 and shape[2] in (3, 4)
        axes = [*"yxc"] if bands else [*("_" * (array.ndim - 2)), "y", "x"]
    sizes = dict(zip(axes, shape, strict=True))
    axis = "c" if "c" in sizes else axes[0]
    names = channel_names(labels, sizes[axis])
    picked = channels_by_name(path, wanted, names) if wanted else None
    bands = picked is not None or sizes.get("c") in (3, 4)
    others = [n for axis, n in zip(axes, shape, strict=True) if axis not in "yx"]
    if not {"y", "x"} <= set(axes) or math.prod(others) > (sizes[axis] if bands else 1):
        are_channels = math.prod(others) == sizes.get("c")
        named = f" ({', '.join(names)})" if are_channels and labels else ""
        raise NotReadError(
            f"{path} is a stack of {math.prod(others)} "
            f"{'channels' if are_channels else 'images'}{named} (shape "
            f"{' × '.join(map(str, shape))}); save the one to segment by itself"
            f"{JOINED * are_channels}"
        )
    # Blank chunks may be missing.
    check_claim(array.nbytes, 32 * stored, path, is_read=False)
    check_claim(math.prod(array.chunks) * array.dtype.itemsize, stored, path)

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        spans: dict[str, Any] = {"y": rows, "x": columns}
        spans |= {axis: slice(None) if picked is None else picked} if bands else {}
        source = array if picked is None else array.oindex
        part = np.asarray(source[tuple(spans.get(one, 0) for one in axes)])
        kept = [one for one in axes if one in spans]
        return part.transpose([kept.index(one) for one in spans])

    count = sizes[axis] if picked is None else len(picked)
    size = (sizes["y"], sizes["x"], *([count] if bands else []))
    of_chunk = dict(zip(axes, array.chunks, strict=True))
    return LazyImage(
        path, read, size, array.dtype, chunks=(of_chunk["y"], of_chunk["x"])
    )


def opened(path: Path) -> Any:
    """Return the group or array of a folder; OSError where it is none."""
    import zarr

    if not is_zarr(path):
        raise IsADirectoryError(f"{path} is a folder, and no OME-Zarr; give a file")
    for entry in path.iterdir():
        if entry.is_file() and entry.stat().st_size > JSON_BYTES:
            raise damaged(path, ValueError(f"{entry.name} is too large"))
    return zarr.open(path, mode="r")


def pixel_size(about: Mapping[str, Any]) -> tuple[Size, str] | None:
    """Return side(s) of a pixel and their unit, from the metadata of an OME-Zarr."""
    scale = about["multiscales"][0]
    unit = scale["axes"][-1].get("unit")
    if unit is None:
        return None
    (transform, *_) = scale["datasets"][0]["coordinateTransformations"]
    height, width = map(float, transform["scale"][-2:])
    if not all(0 < side < math.inf for side in (height, width)):
        return None
    return size_of((height, width)), unit_symbol(unit)


def metadata(group: Any) -> dict[str, Any]:
    """Return what OME-Zarr says of a group, of either version."""
    found = dict(group.attrs)
    return dict(found.get("ome", found))


def is_zarr(path: Path) -> bool:
    """Whether a folder is a group or an array of Zarr, of either version."""
    return any((path / name).is_file() for name in (".zgroup", ".zarray", "zarr.json"))


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is an image of OME-Zarr; the package zarr is not needed."""
    return '"multiscales"' in attributes(path)


def attributes(path: Path) -> str:
    """Return the metadata of a folder as text, "" for none."""
    for name in (".zattrs", "zarr.json"):
        try:
            text = (path / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        return text if len(text) <= JSON_BYTES else ""
    return ""
