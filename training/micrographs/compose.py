"""One micrograph from a seed: a layout, what it looks like, what the camera makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from micrographs import layouts, objects
from micrographs.layouts import (
    Layout,
    MakeLayout,
    chance,
    log_uniform,
)
from micrographs.microscope import develop
from micrographs.paint import choose_looks, colour, paint
from micrographs.streams import of_material, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from micrographs.fields import Labels, Plane, Rng, Shape

SMALLEST_SHARE = 0.005
TWO_IN_ONE, MOST_CLASSES = 0.1, 5


@dataclass(frozen=True)
class Micrograph:
    """A picture and its truth.

    Attributes
    ----------
    image : (H, W) or (H, W, 3) uint8 array
    labels : (H, W) uint8 array
        The class of each pixel, 1..K.
    layout : str
        The names of the layouts that are in it.
    """

    image: NDArray[np.uint8]
    labels: Labels
    layout: str


# How a layout is made, how often, with how many classes, is its class 0 a ground
# that other layouts may shine through.
LAYOUTS: dict[str, tuple[MakeLayout, float, range, bool]] = {
    "grains": (layouts.grains, 2.0, range(2, 6), False),
    "walls": (layouts.walls, 2.0, range(2, 4), False),
    "field": (layouts.field, 2.5, range(2, 6), False),
    "two fields": (layouts.two_fields, 2.0, range(3, 6), False),
    "lamellae": (layouts.lamellae, 1.2, range(2, 4), False),
    "layers": (layouts.layers, 1.2, range(2, 6), False),
    "dendrites": (layouts.dendrites, 0.5, range(2, 3), True),
    "cracks": (layouts.cracks, 1.0, range(2, 3), True),
    "particles": (objects.particles, 3.0, range(2, 5), True),
    "two sizes": (objects.two_sizes, 6.0, range(3, 4), True),
    "two shapes": (objects.two_shapes, 2.5, range(3, 4), True),
    "rings": (objects.rings, 1.5, range(2, 4), True),
    "fibres": (objects.fibres, 1.2, range(2, 4), True),
    "needles": (objects.needles, 1.2, range(2, 3), True),
    "tissue": (objects.tissue, 1.5, range(2, 5), False),
    "powder": (objects.powder, 1.5, range(2, 4), True),
    "foam": (objects.foam, 0.8, range(2, 3), False),
    "cell bodies": (objects.cell_bodies, 1.0, range(2, 4), True),
}


def random_micrograph(
    seed: int, size: int | tuple[int, int] = 192, color: bool | None = None
) -> Micrograph:
    """Return a micrograph that the seed decides, 2 to 5 classes, every one present.

    Parameters
    ----------
    seed : int
        With the size it decides everything.
    size : int or (int, int)
        Height and width in pixels, at least 48.
    color : bool, optional
        Colour or grey; by default one in four is in colour.

    Examples
    --------
    >>> picture = random_micrograph(5, (64, 80), color=False)
    >>> picture.image.shape, picture.labels.min()
    ((64, 80), np.uint8(1))
    """
    shape = checked_shape(size)
    rng = np.random.default_rng([seed, *shape])
    in_color, classes = draw_kind(rng, color)
    k = draw_materials((seed, *shape), classes)
    layout, unit = _layout_with_all_classes(rng, shape, k)
    return photograph(lambda _: rng, layout, unit, classes, in_color=in_color)


def checked_shape(size: int | tuple[int, int]) -> Shape:
    """Return height and width, if they are not too small."""
    height, width = np.broadcast_to(size, 2).tolist()
    shape = (int(height), int(width))
    if min(shape) < 48:
        raise ValueError(f"size: {shape} is less than 48 pixels high or wide")
    return shape


def draw_kind(rng: Rng, color: bool | None) -> tuple[bool, int]:
    """Return whether it is in colour, and how many classes there are."""
    in_color = chance(rng, 0.25) if color is None else color
    return in_color, int(rng.choice([2, 3, 4, 5], p=[0.45, 0.35, 0.12, 0.08]))


def draw_materials(key: tuple[int, ...], classes: int) -> int:
    """Return how many materials there are: one more where a class is of two."""
    two_in_one = np.random.default_rng([*key, 0]).random() < TWO_IN_ONE
    return min(classes + two_in_one, MOST_CLASSES)


def draw_unit(rng: Rng, shape: Shape, k: int) -> float:
    """Return the size of structures in pixels."""
    return log_uniform(rng, 4.5 + 1.5 * k, min(90, min(shape) / 2.5))


def photograph(
    rng_of: Callable[[str], Rng],
    layout: Layout,
    unit: float,
    classes: int,
    *,
    in_color: bool,
    magnified: Callable[[Plane, Labels], tuple[Plane, Labels]] | None = None,
) -> Micrograph:
    """Return what a layout looks like; `rng_of` serves each stage.

    Where its materials are more than the classes, the last one is of another's class.
    """
    rng = rng_of("looks")
    looks, gap = settle(rng, "looks", choose_looks(of_material(rng), layout, unit))
    signal, labels = paint(rng_of("paint"), layout, looks, gap), layout.labels
    if in_color:
        signal = colour(rng_of("colour"), layout, looks, signal, gap)
    if magnified is not None:
        signal, labels = magnified(signal, labels)
        unit *= labels.shape[0] / layout.labels.shape[0]
    sharpest = min(unit / 3, 3.0) if layout.fine else unit / 3
    rng = rng_of("develop")
    image = develop(rng, signal, gap=gap, sharpest=sharpest, color=in_color)
    if in_color:
        image = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    own = of_material(rng_of("names"))
    names = own.permutation(classes).astype(np.uint8) + np.uint8(1)
    if layout.labels.max() == classes:
        names = np.append(names, own.choice(names))
    return Micrograph(image, names[labels], layout.name)


def _layout_with_all_classes(rng: Rng, shape: Shape, k: int) -> tuple[Layout, float]:
    """Try until each class has its share; a random field always has."""
    for _ in range(12):
        unit = draw_unit(rng, shape, k)
        layout = arrange(rng, shape, unit, k)
        if is_complete(layout.labels, k):
            return layout, unit
    unit = min(40.0, min(shape) / 4)
    layout = layouts.field(rng, shape, unit, k)
    while not is_complete(layout.labels, k):
        layout = layouts.field(rng, shape, unit, k)
    return replace(layout, name="field"), unit


def is_complete(labels: Labels, k: int) -> bool:
    """Return whether each class has its share."""
    share = np.bincount(labels.ravel(), minlength=k) / labels.size
    return bool(share.min() >= SMALLEST_SHARE)


def arrange(rng: Rng, shape: Shape, unit: float, k: int) -> Layout:
    """One layout of `k` classes, or one in a class of another, or over it."""
    if k == 2 or chance(rng, 0.45):
        return _draw(rng, shape, unit, k)
    split = int(rng.integers(2, k))
    lower = _draw(rng, shape, unit, split)
    over = chance(rng, 0.5)
    finer = unit * log_uniform(rng, 0.2, 1.2 if over else 0.6)
    upper = _draw(rng, shape, max(finer, 5.0), k - split + 1, ground=over)
    return _join(rng, lower, upper, split, over=over)


def _draw(rng: Rng, shape: Shape, unit: float, k: int, ground: bool = False) -> Layout:
    """Return some layout of `k` classes."""
    names = [
        name
        for name, (_, _, classes, has_ground) in LAYOUTS.items()
        if k in classes and (has_ground or not ground)
    ]
    if not names:
        names = ["field"]
    weights = np.array([LAYOUTS[name][1] for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    return replace(LAYOUTS[name][0](rng, shape, unit, k), name=name)


def _join(rng: Rng, lower: Layout, upper: Layout, split: int, *, over: bool) -> Layout:
    """Put the classes of `upper` above 0 over everything, or into one class."""
    into = settle(rng, "into", int(np.bincount(lower.labels.ravel()).argmax()))
    here = upper.labels > 0
    if not over:
        here &= lower.labels == into
    labels, index = lower.labels.copy(), lower.objects.copy()
    labels[here] = upper.labels[here] + np.uint8(split - 1)
    index[here] = upper.objects[here] + lower.count
    height = lower.height
    if upper.height is not None:
        ground = np.float32(0) if height is None else height
        height = np.where(here, upper.height, ground).astype(np.float32)
    alike = lower.alike
    if not alike and upper.alike:
        alike = tuple(into if i == 0 else i + split - 1 for i in upper.alike)
    return Layout(
        labels,
        index,
        lower.count + upper.count,
        height,
        alike,
        lower.fine or upper.fine,
        f"{lower.name} {'under' if over else 'with'} {upper.name}",
    )
