"""The classes a user paints: a name and a colour for each label id."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")

# Told apart by colour-blind eyes and bright on a grey micrograph (Okabe and Ito).
_PALETTE = (
    "#e8590c",
    "#56b4e9",
    "#f0e442",
    "#009e73",
    "#cc79a7",
    "#2a6fdb",
    "#b5e853",
    "#8a3ffc",
)


@dataclass(frozen=True)
class ClassInfo:
    """What a class is called and how it looks."""

    name: str
    color: str


def default_color(class_id: int) -> str:
    """Return the colour of a class nobody has chosen one for, as ``"#rrggbb"``."""
    if 1 <= class_id <= len(_PALETTE):
        return _PALETTE[class_id - 1]
    # Steps of the golden angle never come near a hue that was just used.
    hue = (class_id * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.95)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def default_class(class_id: int) -> ClassInfo:
    """Return the class with its number for a name."""
    return ClassInfo(f"Class {class_id}", default_color(class_id))


class Classes(Mapping[int, ClassInfo]):
    """The classes in the order of the table, by label id.

    Label ids stay what they are when classes are put into another order, so that
    nothing painted or written changes its meaning.
    """

    changed: ClassVar[Signal] = Signal()

    def __init__(self, classes: Mapping[int, ClassInfo] | None = None) -> None:
        two = {class_id: default_class(class_id) for class_id in (1, 2)}
        self._classes = dict(two if classes is None else classes)
        self._removed: dict[int, ClassInfo] = {}  # undo may bring their scribbles back
        self._rows = list(self._classes)  # also of those that were removed

    def __getitem__(self, class_id: int) -> ClassInfo:
        return self._classes[class_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def add(self, name: str = "") -> int:
        """Add a class, and return its id."""
        class_id = max((*self._classes, *self._removed), default=0) + 1
        self.ensure((class_id,), names={class_id: name})
        return class_id

    def ensure(
        self,
        ids: Iterable[int],
        *,
        names: Mapping[int, str] | None = None,
        colors: Mapping[int, str] | None = None,
    ) -> None:
        """Add the classes that are missing, and take over names and colours."""
        names, colors = names or {}, colors or {}
        classes = dict(self._classes)
        for class_id in sorted({int(i) for i in (*ids, *names, *colors) if i > 0}):
            known = classes.get(class_id) or self._as_it_was(class_id)
            classes[class_id] = ClassInfo(
                readable(names.get(class_id) or known.name),
                colors.get(class_id) or known.color,
            )
        rows = {class_id: row for row, class_id in enumerate(self._rows)}
        order = sorted(classes, key=lambda class_id: rows.get(class_id, len(rows)))
        self._become({class_id: classes[class_id] for class_id in order})

    def rename(self, class_id: int, name: str) -> None:
        """Give a class another name, which no other class may have."""
        name = " ".join(readable(name).split())
        if not name:
            raise ValueError("name: a class needs a name; it was empty")
        taken = [i for i, info in self.items() if info.name == name and i != class_id]
        if taken:
            raise ValueError(f"name: {name!r} is the name of class {taken[0]} already")
        self._become(
            self._classes | {class_id: replace(self._classes[class_id], name=name)}
        )

    def recolor(self, class_id: int, color: str) -> None:
        """Give a class another colour, ``"#rrggbb"``."""
        if not _COLOR.fullmatch(color):
            raise ValueError(f"color: {color!r} is none; #rrggbb is needed")
        info = replace(self._classes[class_id], color=color.lower())
        self._become(self._classes | {class_id: info})

    def move(self, class_id: int, row: int) -> None:
        """Put a class into another row of the table."""
        ids = [i for i in self._classes if i != class_id]
        ids.insert(row, class_id)
        self._become({i: self._classes[i] for i in ids})

    def remove(self, class_id: int) -> None:
        """Take a class out; what is painted in it is none of this object's business."""
        self._removed[class_id] = self._classes[class_id]
        self._become({i: info for i, info in self.items() if i != class_id})

    def restore(self, classes: Mapping[int, ClassInfo]) -> None:
        """Take over all classes and their order, as from a project."""
        self._removed = {}
        self._become({i: replace(c, name=readable(c.name)) for i, c in classes.items()})

    def _as_it_was(self, class_id: int) -> ClassInfo:
        """Return a class as it was when it was removed, or a new one."""
        info = self._removed.pop(class_id, default_class(class_id))
        taken = any(info.name == other.name for other in self.values())
        return replace(info, name=f"Class {class_id}") if taken else info

    def _become(self, classes: dict[int, ClassInfo]) -> None:
        if list(classes.items()) == list(self._classes.items()):
            return
        ids = iter(classes)
        removed = {i for i in self._rows if i in self._removed and i not in classes}
        slots = [i for i in self._rows if i in classes or i in removed]
        kept = [i if i in removed else next(ids) for i in slots]
        self._rows = [*kept, *ids]
        self._classes = classes
        self.changed.emit()


def readable(name: str) -> str:
    """Return a name as any file can hold it: halves of characters become "�"."""
    return name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def matched_classes(
    classes: Classes, theirs: Mapping[int, ClassInfo]
) -> dict[int, int]:
    """Return our label ids by theirs, by the names; classes that are new are added."""
    ours = {info.name: class_id for class_id, info in classes.items()}
    ids: dict[int, int] = {}
    for class_id, info in theirs.items():
        if info.name not in ours:
            free = class_id if class_id not in classes else max(classes) + 1
            classes.ensure((free,), names={free: info.name}, colors={free: info.color})
            ours[info.name] = free
        ids[class_id] = ours[info.name]
    return ids


def relabelled(labels: NDArray[Any], ids: Mapping[int, int]) -> NDArray[Any]:
    """Return labels with other ids; those that are not named stay."""
    changed = {old: new for old, new in ids.items() if old != new}
    if not changed or not labels.size:
        return labels
    found, position = np.unique(labels, return_inverse=True)
    new = [changed.get(int(label), int(label)) for label in found]
    kind = np.promote_types(labels.dtype, np.min_scalar_type(max(new)))
    return np.array(new, kind)[position.reshape(labels.shape)]
