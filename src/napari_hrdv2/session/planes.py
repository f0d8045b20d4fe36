"""Planes of stacks: their keys, their pixels, and the names of their axes."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

AXIS_NAMES = ("Z", "T", "channel")
"""What an axis that the file does not name can be called."""

_SPELLINGS = {"z": "Z", "depth": "Z", "t": "T", "time": "T"} | dict.fromkeys(
    ("c", "ch", "channels"), "channel"
)
# Viewers count axes that have no name; tifffile writes I and Q for "some sequence".
_NO_NAME = re.compile(r"\s*(-?\d+|(axis|dim|dimension)[ _]?-?\d*|[iIqQ?]|)\s*")
_PLANE_KEY = re.compile(r"(.*)/(\d+(?:,\d+)*)", re.DOTALL)

LARGE = 2**26  # pixels
AHEAD, BEHIND = 2, 1  # planes that a user who scrolls on, or back, sees next


@dataclass(frozen=True, order=True)
class PlaneKey:
    """Which image entry is meant: the id of an image, and the plane of a stack.

    As text, which is what files hold, ``alloy`` or ``alloy/3,0``.

    Examples
    --------
    >>> key = PlaneKey("alloy", (3, 0))
    >>> str(key), PlaneKey.parse("alloy/3,0") == key, PlaneKey.parse("alloy").plane
    ('alloy/3,0', True, ())
    """

    image: str
    plane: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> PlaneKey:
        """Return the key that is written so."""
        found = _PLANE_KEY.fullmatch(text)
        if found is None:
            return cls(text)
        return cls(found[1], tuple(map(int, found[2].split(","))))

    def __str__(self) -> str:
        plane = ",".join(map(str, self.plane))
        return f"{self.image}/{plane}" if plane else self.image


def as_key(key: PlaneKey | str) -> PlaneKey:
    """Return a key that may have been given as text."""
    return PlaneKey.parse(key) if isinstance(key, str) else key


class Plane:
    """One plane of a stack, as an array that is read when it is first needed.

    Stacks may lie on a disk or be computed: whoever needs the pixels waits for them,
    in the thread where they are needed, and nobody else does. `read_part` takes an
    index into the plane: parts of a large one are read alone.

    Examples
    --------
    >>> stack = np.arange(24).reshape(2, 3, 4)
    >>> plane = Plane(lambda: stack[1], (3, 4), stack.dtype)
    >>> plane.shape, int(np.asarray(plane).min())
    ((3, 4), 12)
    """

    def __init__(
        self,
        read: Callable[[], ArrayLike],
        shape: Sequence[int],
        dtype: Any,
        read_part: Callable[[Any], ArrayLike] | None = None,
    ) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.dtype = np.dtype(dtype)
        self._read, self._read_part = read, read_part
        self._pixels: NDArray[Any] | None = None
        self._lock = threading.Lock()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        with self._lock:
            if self._pixels is None:
                self._pixels = np.asarray(self._read())
            pixels = self._pixels
        if pixels.shape != self.shape:
            raise ValueError(
                f"image: the plane has shape {pixels.shape} where {self.shape} was "
                "announced; open the stack again"
            )
        return np.array(pixels, dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        if self._pixels is None and self._read_part is not None:
            return np.asarray(self._read_part(index))
        return np.asarray(self)[index]

    def __len__(self) -> int:
        return self.shape[0]

    def forget(self) -> None:
        """Let go of the pixels; they are read again when they are needed."""
        with self._lock:
            self._pixels = None


def is_lazy(image: Any) -> bool:
    """Whether the pixels of an image are read, or computed, when they are needed."""
    while isinstance(image, np.ndarray) and not isinstance(image, np.memmap):
        image = image.base
    return isinstance(image, (np.memmap, Plane))


def is_large(image: Any) -> bool:
    """Whether an image is cut into blocks rather than read, even if it could be."""
    return is_lazy(image) and math.prod(image.shape[:2]) > LARGE


def axis_name(label: str) -> str | None:
    """Return what an axis is called, or None where the label says nothing.

    Examples
    --------
    >>> axis_name("z"), axis_name("tilt"), axis_name("-3"), axis_name("axis 0")
    ('Z', 'tilt', None, None)
    """
    if _NO_NAME.fullmatch(label):
        return None
    return _SPELLINGS.get(label.strip().lower(), label.strip())


def axis_names(labels: Sequence[str]) -> tuple[str | None, ...]:
    """Return the names of axes; one that repeats another's name has none."""
    names: list[str | None] = []
    for label in labels:
        name = axis_name(label)
        names.append(None if name in names else name)
    return tuple(names)


def neighbours(
    index: Sequence[int], sizes: Sequence[int], *, axis: int = 0, step: int = 1
) -> list[tuple[int, ...]]:
    """Return the planes that come next: two in the direction of travel, one behind.

    Examples
    --------
    >>> neighbours((3, 0), (6, 2), step=1)
    [(4, 0), (5, 0), (2, 0)]
    >>> neighbours((0,), (6,), step=-1)
    [(1,)]
    """
    if not index:
        return []
    distances = (*range(1, AHEAD + 1), *range(-1, -BEHIND - 1, -1))
    near = (index[axis] + step * distance for distance in distances)
    before, after = index[:axis], index[axis + 1 :]
    return [(*before, i, *after) for i in near if 0 <= i < sizes[axis]]


def text_of(plane: dict[str, int]) -> str:
    """Return a plane in words: ``"Z 3, T 0"``."""
    return ", ".join(f"{name} {number}" for name, number in plane.items())
