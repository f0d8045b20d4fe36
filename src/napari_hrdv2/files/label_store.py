"""Labels that are written block by block into an OME-Zarr, and gone on with later.

While it is written, ``NAME.zarr.unfinished`` beside it holds the array, what it is made
from as a fingerprint, and a line for each block that is done, with its checksum. What
is killed is gone on with by the same fingerprint and begun anew by another one; the
name itself appears when all is there.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2 import __version__
from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.core.series import REVISION

from .labels import SOFTWARE, LabelClasses
from .ome_zarr import (
    annotate,
    check_replaceable,
    label_metadata,
    new_array,
    replace_folder,
)
from .units import NO_UNIT, Size
from .zarr_images import attributes, is_zarr

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.postprocess.refinement import Refinement

    from .images import ImageFile

SUFFIX = "_segmentation.zarr"  # of the name of an image
SMALLEST_LEVEL = 1024  # pixels of the longest side, of the pyramid's last level
PLANE_CHUNK = 512  # pixels along a side, at most: what is around a block is read too
_VERSION = "0.4"

Window = tuple[slice, slice]


class Place(NamedTuple):
    """Where blocks of a store are written, from whichever process."""

    folder: Path
    made_from: str
    has_probabilities: bool


def check_store(target: Path) -> None:
    """Raise ValueError or FileExistsError where labels cannot be written to."""
    if target.suffix != ".zarr":
        raise ValueError(f"{target} is no name of a Zarr folder; end it in .zarr")
    check_replaceable(target)
    if is_zarr(target) and SOFTWARE not in attributes(target):
        raise FileExistsError(
            f"{target} is Zarr that napari-hrdv2 did not write; name another folder"
        )


class LabelStore:
    """An (H, W) array of labels on the way into the OME-Zarr `target`.

    Its `blocks` begin at multiples of `block` pixels. A (Z, H, W) volume is one of
    Z · H rows here, plane below plane, and each block is of one plane. There is room
    for the labels and, with `is_refined`, for those before refinement, or for so many
    `planes` of probabilities. What is there under this fingerprint is finished already.
    """

    def __init__(
        self,
        target: Path,
        shape: tuple[int, ...],
        largest: int,
        fingerprint: str,
        *,
        block: int,
        is_refined: bool = False,
        planes: int = 0,
    ) -> None:
        import zarr

        check_store(target)
        self.target, self.shape, self.block = target, shape, block
        self.fingerprint = fingerprint
        self.folder = unfinished(target)
        dtype = np.min_scalar_type(largest)
        about = [fingerprint, list(shape), block, dtype.name, is_refined]
        self.place = Place(self.folder.resolve(), json.dumps(about), planes > 0)
        self.blocks = list(grid(shape, block))
        self._root: Any
        self._labels: Any
        self.is_finished = self._is_there_as_written()
        if self.is_finished:
            return
        self._done, mark = self.folder / "done.txt", self.folder / "made_from.json"
        is_new = not _is_made_from(self.place)
        whole = self.folder / "labels.zarr"
        if is_new or not whole.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            root = zarr.open_group(whole, mode="w", zarr_format=2)
            new_array(root, "0", shape, dtype, block)
            if is_refined:
                before = self.folder / "predicted.zarr"
                root = zarr.open_group(before, mode="w", zarr_format=2)
                needed = 4 * planes * shape[0] * shape[1]
                check_disk(self.folder, needed, "probabilities", "no smoothing")
                cuts = (n for n in range(1, 17) if block % n == 0)
                sides = (block // n for n in cuts if block // n <= PLANE_CHUNK)
                # No two blocks share a chunk.
                kind = (planes, *shape), np.float32, next(sides, block)
                new_array(root, "0", *(kind if planes else (shape, dtype, block)))
            mark.write_text(self.place.made_from, encoding="utf-8")
        self._root = zarr.open_group(whole, mode="r+")
        self._labels = self._predicted = self._root["0"]
        if is_refined:
            name = self.folder / "predicted.zarr" / "0"
            self._predicted = zarr.open_array(name, mode="r+")
        self._checksums = self._known_checksums()

    def _is_there_as_written(self) -> bool:
        import zarr

        with suppress(OSError, ValueError, LookupError, TypeError, RuntimeError):
            mark = json.loads(attributes(self.target))["_creator"]
            if mark["fingerprint"] != self.fingerprint:
                return False
            self._root = zarr.open_group(self.target, mode="r")
            self._labels = self._root["0"]
            return bool(mark["checksum"] == self._checksum_of_all())
        return False

    def _checksum_of_all(self) -> int:
        total = 0
        for window in self.blocks:
            total = zlib.crc32(str(_checksum(self.read(window))).encode(), total)
        return total

    def is_done(self, window: Window) -> bool:
        """Whether a block was predicted, and is as it was written."""
        if self.is_finished:
            return True
        wanted = self._checksums.get((window[0].start, window[1].start))
        return wanted is not None and wanted == _checksum(self.predicted(window))

    def predict(self, window: Window, labels: NDArray[Any]) -> None:
        """Keep the labels or planes of a block, and remember that it is done."""
        self.note(window, put_block(self.place, window, labels))

    def note(self, window: Window, checksum: int) -> None:
        """Remember that a block was put into the folder, by whichever process."""
        with open(self._done, "a", encoding="ascii") as file:
            starts = window[0].start, window[1].start
            # The line before it may have been broken off.
            file.write("\n{} {} {}".format(*starts, checksum))

    def predicted(self, window: Window) -> NDArray[Any]:
        """Return the labels or planes of a window as they were predicted."""
        return np.asarray(self._predicted[_place_in(self.shape, window)])

    def read(self, window: Window) -> NDArray[Any]:
        """Return the labels of a block, refined ones where there are two."""
        return np.asarray(self._labels[_place_in(self.shape, window)])

    def write(self, window: Window, labels: NDArray[Any]) -> None:
        """Write refined labels of a block."""
        self._labels[_place_in(self.shape, window)] = labels

    def finish(
        self,
        classes: LabelClasses,
        pixel_size: Size | None = None,
        unit: str = NO_UNIT,
        depth: float | None = None,
    ) -> None:
        """Make the smaller levels, name classes, and give it all its name."""
        if self.is_finished:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        source, level = self._labels, 0
        while max(source.shape[-2:]) > SMALLEST_LEVEL:
            level += 1
            shape = (*source.shape[:-2], *(-(-n // 2) for n in source.shape[-2:]))
            name = str(level)
            smaller = new_array(self._root, name, shape, source.dtype, self.block)
            for window in grid(shape, self.block):
                *plane, rows, columns = place = _place_in(shape, window)
                wide = [slice(2 * s.start, 2 * s.stop) for s in (rows, columns)]
                # The nearest pixel: a mean of label ids is none.
                smaller[place] = np.asarray(source[(*plane, *wide)])[::2, ::2]
            source = smaller
        about = {"image-label": label_metadata(classes, _VERSION)}
        del about["image-label"]["source"]
        size = pixel_size, unit
        annotate(self._root, _VERSION, about, self.target.stem, size, depth or 0.0)
        mark = {
            "name": SOFTWARE,
            "fingerprint": self.fingerprint,
            "checksum": self._checksum_of_all(),
        }
        self._root.attrs["_creator"] = mark
        whole = self.folder / "labels.zarr"
        for partial in whole.rglob("*.partial"):  # of a writer that was killed
            partial.unlink()
        replace_folder(self.target, whole)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _known_checksums(self) -> dict[tuple[int, int], int]:
        known = {}
        with suppress(OSError):
            for line in self._done.read_text(encoding="ascii").splitlines():
                if len(numbers := line.split()) == 3:
                    top, left, checksum = map(int, numbers)
                    known[top, left] = checksum
        return known


def put_block(place: Place, window: Window, labels: NDArray[Any]) -> int:
    """Write labels or planes of a block, from whichever process; return a checksum.

    Blocks are whole chunks. OSError where the store is not any more what it was.
    """
    import zarr

    if not _is_made_from(place):
        raise FileNotFoundError(
            f"{place.folder} is no more what the block was made for"
        )
    before = place.folder / "predicted.zarr"
    whole = before if before.is_dir() else place.folder / "labels.zarr"
    array: Any = zarr.open_array(whole / "0", mode="r+")
    window = _place_in(json.loads(place.made_from)[1], window)
    array[window] = labels = np.asarray(labels, array.dtype)
    return _checksum(labels)


def unfinished(target: Path) -> Path:
    """Return the folder beside a store in which it is while it is written."""
    return target.with_name(f"{target.name}.unfinished")


def begun_as(target: Path) -> str | None:
    """Return the fingerprint of what was begun beside a name, None for nothing."""
    with suppress(OSError, ValueError, LookupError):
        mark = unfinished(target) / "made_from.json"
        return str(json.loads(mark.read_text(encoding="utf-8"))[0])
    return None


def store_fingerprint(
    file: ImageFile,
    features: Features,
    classifier: PixelClassifier,
    exclusion: NDArray[np.bool_] | None,
    refinement: Refinement,
    colors: Mapping[int, str] | None,
) -> str:
    """Return what all runs of `stream_labels` have in common that give one store."""
    classes = LabelClasses(dict(classifier.class_names), dict(colors or {}))
    made = hashlib.blake2b(repr((__version__, REVISION)).encode(), digest_size=16)
    for array in (classifier.weight, classifier.bias, classifier.classes):
        made.update(np.ascontiguousarray(array).data.cast("B"))
    image = file.data
    size = file.pixel_size, file.unit, getattr(image, "spacing", None)
    seen = image_fingerprint(image), getattr(image, "width", 0), size
    cut = getattr(features, "seen", None)
    about = features.part_options, refinement, classes, seen, cut
    made.update(repr(about).encode("utf-8", "backslashreplace"))
    if exclusion is not None:
        made.update(np.packbits(exclusion).data.cast("B"))
    return made.hexdigest()


def _is_made_from(place: Place) -> bool:
    with suppress(OSError, ValueError):
        made_from = (place.folder / "made_from.json").read_text(encoding="utf-8")
        return made_from == place.made_from
    return False


def check_disk(folder: Path, needed: int, of: str, instead: str) -> None:
    """Raise OSError where so many bytes of something have no room on a disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free and {of} need up to "
            f"{needed / 1e9:.1f} GB; choose another disk, or {instead}"
        )


def grid(shape: tuple[int, ...], side: int) -> Iterator[Window]:
    """Yield squares that cover an image, or a volume as one, plane below plane."""
    for first, top, left in product(
        range(0, math.prod(shape[:-1]), shape[-2]),
        range(0, shape[-2], side),
        range(0, shape[-1], side),
    ):
        rows = slice(first + top, first + min(top + side, shape[-2]))
        yield rows, slice(left, min(left + side, shape[-1]))


def _place_in(shape: Sequence[int], window: Window) -> tuple[Any, ...]:
    """Return where a window lies in an array of an image or a volume of a shape."""
    rows, columns = window
    if len(shape) == 2:
        return (..., *window)
    plane, top = divmod(rows.start, shape[1])
    return plane, slice(top, top + rows.stop - rows.start), columns


def _checksum(labels: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(labels).data.cast("B"))
