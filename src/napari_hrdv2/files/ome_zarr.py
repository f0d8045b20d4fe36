"""OME-Zarr in and out: an image and labels with names, colours and pixel size [1]_.

What is written is one array of full resolution for each, without a pyramid; of what is
read, the full resolution counts.

References
----------
.. [1] J. Moore et al., "OME-Zarr: a cloud-optimized bioimaging file format with
   international community support", Histochem. Cell Biol. 160, 223-251 (2023).
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import remove_leftovers
from napari_hrdv2.core.limits import MOST_CHUNKS, check_claim

from .labels import (
    SOFTWARE,
    ImportedLabels,
    LabelClasses,
    as_ids,
    check_size,
    checked_ids,
    count_text,
    rgb,
)
from .reading import NotReadError, told
from .units import NO_UNIT, Size, sides_of, unit_name, unit_symbol
from .zarr_images import is_zarr, metadata, opened, pixel_size

_VERSIONS: dict[str, Any] = {"0.4": 2, "0.5": 3}  # of OME-Zarr, and the Zarr beneath
_CHUNK = 1024
_CHANNELS = ("FF0000", "00FF00", "0000FF", "FFFFFF")


def write_ome_zarr(
    path: str | os.PathLike[str],
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]] | Mapping[str, NDArray[np.integer[Any]]],
    classes: LabelClasses,
    pixel_size: Size | None = None,
    unit: str = NO_UNIT,
    *,
    version: str = "0.4",
) -> None:
    """Write an image and its labels as one OME-Zarr folder.

    Parameters
    ----------
    path : path-like
        An OME-Zarr that was there is replaced once the new one is complete; any other
        folder is left alone.
    image : (H, W) or (H, W, 3|4) array
    labels : (H, W) integer array, or mapping of str to such arrays
        Ids from 0; several label images by their names, else it is "segmentation".
    classes : LabelClasses
        Names and ``"#rrggbb"`` colours by id, for all of them.
    version : {"0.4", "0.5"}
        Of the format; most programs read 0.4.
    """
    import zarr

    if version not in _VERSIONS:
        raise ValueError(f"version: {version!r} is unknown; choose 0.4 or 0.5")
    image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (3, 4)):
        raise ValueError(
            f"image: shape {image.shape} is not (H, W), (H, W, 3) or (H, W, 4)"
        )
    many = labels if isinstance(labels, Mapping) else {"segmentation": labels}
    checked = {name: checked_ids(each) for name, each in many.items()}
    for name, each in checked.items():
        if each.shape != image.shape[:2]:
            raise ValueError(
                f"labels: {name} of shape {each.shape} does not fit an image of shape "
                f"{image.shape[:2]}"
            )
    target = Path(path)
    name = f".{target.stem}-{secrets.token_hex(8)}{target.suffix}"
    temporary = target.with_name(name)
    remove_leftovers(target)
    check_replaceable(target)
    size = (pixel_size, unit)
    try:
        root = zarr.open_group(temporary, mode="w", zarr_format=_VERSIONS[version])
        channels = _write_image(root, image)
        annotate(root, version, channels, target.stem, size)
        root.attrs["_creator"] = {"name": SOFTWARE}
        group = root.create_group("labels")
        annotate(group, version, {"labels": list(checked)})
        about = label_metadata(classes, version)
        for name, each in checked.items():
            _write_array(group.create_group(name), each)
            annotate(group[name], version, {"image-label": about}, name, size)
        replace_folder(target, temporary)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{target} could not be written: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_image(root: Any, image: NDArray[Any]) -> dict[str, Any]:
    """Write the image, its channels first, and return what tells their colours."""
    if image.dtype == bool:
        image = image.astype(np.uint8)
    if image.dtype == np.float16:
        image = image.astype(np.float32)  # few programs know half precision
    if image.ndim == 2:
        _write_array(root, image)
        return {}
    _write_array(root, np.moveaxis(image, -1, 0))
    high = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1
    window = {"min": 0, "max": high, "start": 0, "end": high}
    channels = [
        {"color": color, "window": window, "active": color != _CHANNELS[-1]}
        for color in _CHANNELS[: image.shape[-1]]
    ]
    return {"omero": {"channels": channels, "rdefs": {"model": "color"}}}


def label_metadata(classes: LabelClasses, version: str) -> dict[str, Any]:
    """Return names and colours as the standard has them."""
    about = {
        "version": version if version == "0.4" else None,
        "colors": [
            {"label-value": i, "rgba": [*rgb(i, classes.colors), 255]}
            for i in sorted(classes.colors)
        ],
        "properties": [
            {"label-value": i, "name": classes.names[i]} for i in sorted(classes.names)
        ],
        "source": {"image": "../../"},
    }
    return {key: value for key, value in about.items() if value}


def new_array(
    group: Any, name: str, shape: tuple[int, ...], dtype: Any, side: int = _CHUNK
) -> Any:
    """Return an array in chunks of one plane, at most so many pixels along a side."""
    options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    if group.metadata.zarr_format == 3:
        options = {"dimension_names": ("c", "y", "x")[-len(shape) :]}
    return group.create_array(
        name,
        shape=shape,
        chunks=(*(1 for _ in shape[:-2]), *(min(n, side) for n in shape[-2:])),
        dtype=dtype,
        overwrite=True,
        # Blank chunks, too: one that is missing is one that was lost.
        config={"write_empty_chunks": True},
        **options,
    )


def _write_array(group: Any, data: NDArray[Any]) -> None:
    new_array(group, "0", data.shape, data.dtype)[...] = data


def annotate(
    group: Any,
    version: str,
    metadata: dict[str, Any],
    name: str = "",
    size: tuple[Size | None, str] | None = None,
    depth: float | None = None,
) -> None:
    """Write metadata where the version wants it; with a size, that of its array.

    With `depth` its first axis is not of channels but planes, 0 apart if not known.
    """
    if size is not None:
        length, unit = size
        known = length is not None and unit_symbol(unit) != NO_UNIT
        about = {"unit": unit_name(unit)} if known else {}
        space = [{"name": axis, "type": "space", **about} for axis in "yx"]
        channels = [{"name": "c", "type": "channel"}] * (group["0"].ndim - 2)
        scale = [1.0] * len(channels) + [*sides_of(1.0 if length is None else length)]
        if depth is not None and channels:
            channels = [{"name": "z", "type": "space", **(about if depth else {})}]
            scale[0] = depth or 1.0
        datasets = [
            {
                "path": path,
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [*scale[:-2], *(n * 2**level for n in scale[-2:])],
                    }
                ],
            }
            for level, path in enumerate(sorted(group.array_keys(), key=int))
        ]
        image = {"name": name, "axes": [*channels, *space], "datasets": datasets}
        # Since 0.5 the version stands once, beside the multiscales.
        stated = {"version": version} if version == "0.4" else {}
        metadata = {"multiscales": [image | stated], **metadata}
    group.attrs.update(
        metadata if version == "0.4" else {"ome": {"version": version, **metadata}}
    )


def check_replaceable(target: Path) -> None:
    """Raise FileExistsError for what is no Zarr of anybody."""
    if target.is_dir() and not is_zarr(target) and any(target.iterdir()):
        raise FileExistsError(
            f"{target} is a folder with other things in it; name a new one"
        )
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file; name a folder, such as result.zarr")


def replace_folder(target: Path, complete: Path) -> None:
    """Replace a folder by another; it only goes when that has worked."""
    name = f".{target.stem}-{secrets.token_hex(8)}{target.suffix}-former"
    former = target.with_name(name)
    if target.exists():
        os.replace(target, former)
    try:
        os.replace(complete, target)
    except OSError:
        if former.exists():
            os.replace(former, target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def read_ome_zarr(
    path: str | os.PathLike[str],
    shape: tuple[int, int] | None = None,
    *,
    name: str | None = None,
) -> ImportedLabels:
    """Return a label image of an OME-Zarr folder, at full resolution.

    The folder may be that of the image or of one of its label images. Where there are
    several, the one of that `name` is taken, else the first.
    """
    path = Path(path)
    with told(path):
        found, group = _label_group(path, opened(path), name)
        array = _checked(path, _array(group))
        if any(length > 1 for length in array.shape[:-2]):
            shown = " × ".join(map(str, array.shape))
            raise NotReadError(
                f"{path} has labels of a stack ({shown}); one plane is needed"
            )
        check_size(path, array.shape[-2:], shape)
        labels = as_ids(path, array[:].reshape(array.shape[-2:]))
        classes = _classes(metadata(group).get("image-label", {}))
        count = len(np.unique(labels[labels > 0]))
        note = f"OME-Zarr: {count_text(count, 'class', 'classes')} of {found}"
        return ImportedLabels(labels, classes, f"{note}{_told_missing(array)}.")


def read_image_and_labels(
    path: Path,
) -> tuple[Any, dict[str, ImportedLabels], tuple[Size, str] | None]:
    """Return the array of the image, the label images by name, and the pixel size."""
    with told(path):
        group = opened(path)
        image = _checked(path, _array(group))
        names = metadata(group["labels"])["labels"] if "labels" in group else []
        size = pixel_size(metadata(group))
        if missing := _told_missing(image):
            warnings.warn(f"{path}: the image{missing}", stacklevel=3)
        labels = {str(name): read_ome_zarr(path, name=str(name)) for name in names}
        return np.asarray(image[:]), labels, size


def open_label_levels(
    path: Path,
) -> tuple[list[Any], LabelClasses, tuple[Size, str] | None]:
    """Return the arrays of a label image, unread, its classes, and the pixel size."""
    with told(path):
        group = opened(path)
        about = metadata(group)
        paths = [one["path"] for one in about["multiscales"][0]["datasets"]]
        classes = _classes(about.get("image-label", {}))
        return [group[name] for name in paths], classes, pixel_size(about)


def _label_group(path: Path, group: Any, name: str | None) -> tuple[str, Any]:
    """The label image of that name, else the first; or the group itself if it is."""
    if "image-label" in metadata(group):
        return path.name, group
    names = metadata(group["labels"])["labels"] if "labels" in group else []
    chosen = name if name in names else names[0] if names else None
    if chosen is not None:
        return str(chosen), group[f"labels/{chosen}"]
    raise NotReadError(f"{path} has no labels beside its image")


def _array(group: Any) -> Any:
    """The array of full resolution."""
    return group[metadata(group)["multiscales"][0]["datasets"][0]["path"]]


def _checked(path: Path, array: Any) -> Any:
    """Return an array of numbers that has rows and columns and can be read."""
    if array.ndim < 2 or np.dtype(array.dtype).kind not in "buif":
        raise ValueError(f"an array of {array.dtype} with {array.ndim} axes")
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    check_claim(array.nbytes, 32 * stored, path)  # blank chunks may be missing
    # A chunk is unpacked whole.
    check_claim(math.prod(array.chunks) * array.dtype.itemsize, stored, path)
    if array.nchunks > MOST_CHUNKS:
        raise ValueError(f"{array.nchunks} chunks, more than the {MOST_CHUNKS} read")
    return array


def _told_missing(array: Any) -> str:
    missing = array.nchunks - array.nchunks_initialized
    if not missing:
        return ""
    return (
        f"; {count_text(missing, 'chunk')} of {array.nchunks} not there, read as "
        f"{array.fill_value}"
    )


def _classes(about: Mapping[str, Any]) -> LabelClasses:
    names, colors = {}, {}
    for entry in about.get("properties") or []:
        # What a name is called is left to programs by the standard.
        name = next((entry[k] for k in ("name", "class", "label") if k in entry), None)
        if name is not None:
            names[int(entry["label-value"])] = str(name)
    for entry in about.get("colors") or []:
        if entry.get("rgba") and entry["label-value"] > 0:
            red, green, blue = entry["rgba"][:3]
            colors[int(entry["label-value"])] = f"#{red:02x}{green:02x}{blue:02x}"
    return LabelClasses(names, colors)
