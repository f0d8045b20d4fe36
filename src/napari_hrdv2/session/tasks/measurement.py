"""Phase fractions of several images together; the objects of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.measure import (
    Fractions,
    ParticleTable,
    PixelSize,
    combined_fractions,
    particle_table,
)
from napari_hrdv2.core.postprocess.instances import Method, instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.session.planes import PlaneKey
    from napari_hrdv2.session.snapshots import ImageSnapshot

    from .context import TaskContext


@dataclass(frozen=True)
class Measured:
    """Phase fractions of images."""

    images: dict[PlaneKey, Fractions]
    names: dict[PlaneKey, str]  # none occurs twice
    together: Fractions  # of all that are of one classifier, and refined alike
    note: str  # what to mind about the images together

    @classmethod
    def of(
        cls,
        images: dict[PlaneKey, Fractions],
        names: dict[PlaneKey, str],
        pixel_sizes: dict[PlaneKey, PixelSize | None],
        *,
        apart: frozenset[PlaneKey] = frozenset(),
        note: str = "",
    ) -> Measured:
        """Return the fractions of images, and of all but those `apart` together."""
        joined = [key for key in images if key not in apart] or list(images)
        fractions = [images[key] for key in joined]
        sizes = [pixel_sizes[key] for key in joined]
        areas, notes = _areas(fractions, sizes), []
        if len({key.image for key in joined}) < len(joined):
            notes.append(
                "Planes of one stack are alike: the error of all together is too small."
            )
        if areas is None and len(set(sizes)) > 1:
            notes.append(
                "Images count by their pixels: not all have a pixel size in one unit."
            )
        together = combined_fractions(fractions, areas=areas)
        return cls(images, _unique(names), together, " ".join([*notes, note]).strip())


@dataclass(frozen=True)
class Objects:
    """The single objects of a class."""

    key: PlaneKey
    class_id: int
    labels: NDArray[np.int32]  # objects by number from 1
    table: ParticleTable
    source: NDArray[np.integer[Any]]  # the labels that they are in


def find_objects(
    context: TaskContext,
    *,
    image: ImageSnapshot,
    pixel_size: PixelSize | None,
    class_id: int,
    method: Method,
    min_distance: int,
) -> Objects:
    """Return the objects of one class in one image, and their particle table."""
    assert image.result is not None
    context.progress("Splitting", 0, 2)
    labels, exclusion = image.result.shown, image.exclusion
    found = instances(
        labels,
        class_id,
        method=method,
        min_distance=min_distance,
        exclusion=exclusion,
    )
    context.progress("Measuring", 1, 2)
    pixels = np.asarray(image.image)
    table = particle_table(
        found,
        pixel_size=pixel_size,
        image=pixels if pixels.ndim == 2 else None,  # colours have no mean
        exclusion=exclusion,
    )
    return Objects(image.key, class_id, found, table, labels)


def _areas(
    fractions: Sequence[Fractions], sizes: Sequence[PixelSize | None]
) -> list[float] | None:
    """Return areas to weight by, if all pixel sizes are known in one unit."""
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or len({unit for _, unit in known}) != 1:
        return None
    pairs = zip(fractions, known, strict=True)
    return [one.pixels * float(np.prod(np.resize(size, 2))) for one, (size, _) in pairs]


def _unique(names: dict[PlaneKey, str]) -> dict[PlaneKey, str]:
    """Return names by key; those that occur twice are told apart by a number."""
    unique: dict[PlaneKey, str] = {}
    for key, wanted in names.items():
        name, number = wanted, 2
        while name in unique.values():
            name, number = f"{wanted} ({number})", number + 1
        unique[key] = name
    return unique
