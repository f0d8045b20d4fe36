"""Planes of a stack that are read when they are needed."""

from napari_hrdv2.session import ImageSnapshot
from napari_hrdv2.session.planes import Plane, PlaneKey


def planes_of(read, image, count):
    """Return planes of a stack, of which `read` gives that of a number."""
    return tuple(
        ImageSnapshot(
            PlaneKey("s", (number,)),
            Plane(lambda n=number: read(n), image.shape, image.dtype),
            f"plane {number}",
        )
        for number in range(count)
    )
