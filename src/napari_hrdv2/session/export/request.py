"""Writing results: request and answer."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.session import classifier_files
from napari_hrdv2.session.exclusion import rectangles_of
from napari_hrdv2.session.export import exporting as names
from napari_hrdv2.session.export.provenance import (
    Share,
    methods_paragraph,
    python_script,
    stroke_pixels,
)

if TYPE_CHECKING:
    from functools import partial

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.measure import Fractions
    from napari_hrdv2.session.classes import ClassInfo
    from napari_hrdv2.session.export.exporting import Item
    from napari_hrdv2.session.export.provenance import ImageRecord, Provenance
    from napari_hrdv2.session.tasks.context import TaskContext
    from napari_hrdv2.session.tasks.update import UpdateRequest

_INTERVAL = "95 % confidence interval"
_OF_ONE = {  # what is written for each picture
    "labels": "_labels.tif",
    "colors": "_colors.png",
    "zarr": ".zarr",
    "strokes": "_strokes.tif",
}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    paths : tuple of pathlib.Path
    notes : tuple of str
        What could not be, one sentence each.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The same in words."""
        folder = self.paths[0].parent if self.paths else None
        written = f"{len(self.paths)} files written to {folder}." if folder else ""
        return " ".join(filter(None, (written, *self.notes)))


@dataclass(frozen=True, eq=False)
class ExportRequest:
    """Results are to be written.

    Attributes
    ----------
    folder : pathlib.Path
    what : frozenset of str
        Of `exporting.EXPORTS`.
    items : tuple of Item
    classes : dict of int to ClassInfo
    record : partial of Provenance, or None
        For the script, but for the images.
    classifier : PixelClassifier or None
        Written where the script needs it.
    is_loaded : bool
        Whether the script needs it.
    update : UpdateRequest or None
        What brings the pictures up to date first.
    notes : tuple of str
        What is known already not to be written, one sentence each.
    """

    folder: Path
    what: frozenset[str]
    items: tuple[Item, ...]
    classes: dict[int, ClassInfo]
    record: partial[Provenance] | None
    classifier: PixelClassifier | None
    is_loaded: bool = False
    update: UpdateRequest | None = None
    notes: tuple[str, ...] = ()

    def existing(self) -> list[Path]:
        """Return the files that would be replaced."""
        return [path for path in self._targets() if path.exists()]

    def answer(self, context: TaskContext) -> Exported:
        """Write one file after the other, each whole or not at all."""
        if self.update is not None:
            return self._up_to_date(context).answer(context)
        self.folder.mkdir(parents=True, exist_ok=True)
        paths: list[Path] = []
        notes = list(self.notes)
        measured: dict[str, Fractions] = {}
        for number, item in enumerate(self.items):
            context.progress("Exporting", number, len(self.items))
            if context.should_stop():
                raise Cancelled
            for kind in sorted(self.what & set(_OF_ONE)):
                try:
                    paths += self._write(kind, item)
                except ImportError as error:  # an extra that was not installed
                    notes.append(f"{error}.")
            if self.what & {"fractions", "script"}:
                measured |= self._measured(item)
        paths += self._write_tables(measured)
        if self.record is not None:
            paths += self._write_script(self.record, measured)
        return Exported(tuple(dict.fromkeys(paths)), tuple(dict.fromkeys(notes)))

    def _up_to_date(self, context: TaskContext) -> ExportRequest:
        """Return the request with results that are all made in the same way."""
        assert self.update is not None
        done = {one.key: one for one in self.update.answer(context)}
        items, failed = [], []
        for item in self.items:
            now = done.get(item.key)
            if now is None:
                items.append(item)
            elif now.result is not None:
                items.append(replace(item, segmentation=now.result.shown))
            else:
                failed.append(f"{now.error}.")
                if item.trains:  # the script needs it
                    items.append(replace(item, is_wanted=False))
        if not any(item.is_wanted for item in items):
            raise ValueError(" ".join(failed).removesuffix("."))
        notes = (*self.notes, *failed)
        return replace(self, items=tuple(items), update=None, notes=notes)

    def _targets(self) -> list[Path]:
        ends = [end for kind, end in _OF_ONE.items() if kind in self.what]
        wanted = [item for item in self.items if item.is_wanted]
        found = [self.folder / f"{item.stem}{end}" for item in wanted for end in ends]
        found += [self.folder / names.FRACTIONS] * ("fractions" in self.what)
        if self.record is not None:
            found += [self.folder / names.SCRIPT, self.folder / names.METHODS]
            found += [self._strokes_path(item) for item in self.items if item.trains]
            found += [self._image_path(item) for item in self.items]
            found += [self.folder / names.CLASSIFIER] * self.is_loaded
        return list(dict.fromkeys(found))

    def _strokes_path(self, item: Item) -> Path:
        return self.folder / f"{item.stem}{_OF_ONE['strokes']}"

    def _image_path(self, item: Item) -> Path:
        return self.folder / f"{item.stem}_image.tif"

    @property
    def _colors(self) -> dict[int, str]:
        return {class_id: info.color for class_id, info in self.classes.items()}

    @property
    def _names(self) -> dict[int, str]:
        return {class_id: info.name for class_id, info in self.classes.items()}

    def _write(self, kind: str, item: Item) -> list[Path]:
        """Write one kind of file for one picture, if there is something to write."""
        from napari_hrdv2.files import LabelClasses, write_color_png, write_ome_zarr

        path, labels = self.folder / f"{item.stem}{_OF_ONE[kind]}", item.results
        if kind == "strokes":
            return self._write_strokes(item)
        if labels is None:
            return []
        if kind == "labels":
            self._write_labels(path, labels, item)
        elif kind == "colors":
            write_color_png(path, labels, self._colors)
        else:
            size, unit = item.record.pixel_size or (None, "pixel")
            many = {"segmentation": labels}
            if item.strokes is not None and item.strokes.any():
                many["strokes"] = item.strokes
            classes = LabelClasses(self._names, self._colors)
            write_ome_zarr(path, np.asarray(item.image), many, classes, size, unit)
        return [path]

    def _write_strokes(self, item: Item) -> list[Path]:
        if item.strokes is None or not item.strokes.any():
            return []
        path = self._strokes_path(item)
        self._write_labels(path, item.strokes, item)
        return [path]

    def _write_labels(self, path: Path, labels: Any, item: Item) -> None:
        from napari_hrdv2.files import write_labels

        size, unit = item.record.pixel_size or (None, "pixel")
        write_labels(
            path,
            labels,
            pixel_size=size,
            unit=unit,
            class_names=self._names,
            class_colors=self._colors,
        )

    def _measured(self, item: Item) -> dict[str, Fractions]:
        from napari_hrdv2.core.measure import phase_fractions_with_error

        if item.results is None:
            return {}
        found = {int(i) for i in np.unique(item.results) if i}
        listed = [i for i in self.classes if i in found]
        ids = [*listed, *sorted(found - set(listed))]  # also classes that are gone
        return {
            item.stem: phase_fractions_with_error(
                item.results, ids, exclusion=item.exclusion
            )
        }

    def _write_tables(self, measured: dict[str, Fractions]) -> list[Path]:
        from napari_hrdv2.core.measure import write_fractions_csv

        if "fractions" not in self.what:
            return []
        path = self.folder / names.FRACTIONS
        called = {item.stem: item.record.name for item in self.items}
        unique = len(set(called.values())) == len(called)
        rows = {called[s] if unique else s: table for s, table in measured.items()}
        write_fractions_csv(path, rows, class_names=self._names)
        return [path]

    def _write_script(
        self, made: partial[Provenance], measured: dict[str, Fractions]
    ) -> list[Path]:
        """Write script, methods, and what the script reads."""
        paths: list[Path] = []
        images, labels = [], []
        for item in self.items:
            image = self._readable_image(item)
            images.append(image.name if image.parent == self.folder else image)
            paths += [image] * (image.parent == self.folder)
            paths += self._write_strokes(item) if item.trains else []
            labels.append(self._strokes_path(item).name if item.trains else None)
        if self.is_loaded:
            size = self.items[0].record.pixel_size
            classifier = classifier_files.named(self.classifier, self.classes, size)
            place = self.folder / names.CLASSIFIER
            paths.append(classifier_files.save(classifier, place))
        record = made(
            images=tuple(_image_record(item, measured) for item in self.items),
            interval=_INTERVAL,
        )
        # What the script writes is called as our files are, whatever it reads.
        called = tuple(
            replace(image, name=item.stem, path=None)
            for image, item in zip(record.images, self.items, strict=True)
        )
        script = python_script(
            replace(record, images=called), labels=labels, images=images
        )
        for name, text in (
            (names.SCRIPT, script),
            (names.METHODS, methods_paragraph(record)),
        ):
            _write_text(self.folder / name, text)
            paths.append(self.folder / name)
        return paths

    def _readable_image(self, item: Item) -> Path:
        """Return a file that reads as the very image; written where there is none."""
        from napari_hrdv2.files import read_image

        image, source = np.asarray(item.image), item.record.path
        if source is not None and os.path.exists(source):
            try:
                if np.array_equal(read_image(source).data, image):
                    return Path(source).absolute()
            except (OSError, ValueError):
                pass  # a file of a kind that only the viewer reads
        _write_image(self._image_path(item), image, item.record.pixel_size)
        return self._image_path(item)


def _image_record(item: Item, measured: dict[str, Fractions]) -> ImageRecord:
    """Return the record of a picture with strokes, what is left out, and shares."""
    phases = measured[item.stem].phases if item.stem in measured else ()
    return replace(
        item.record,
        stroke_pixels={} if item.counted is None else stroke_pixels(item.counted),
        exclusion=()
        if item.exclusion is None
        else tuple(rectangles_of(item.exclusion)),
        shares={
            phase.class_id: Share(phase.fraction, *(phase.interval or (None, None)))
            for phase in phases
        },
    )


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_image(path: Path, image: Any, size: tuple[float, str] | None) -> None:
    """Write an image so that `files.read_image` gives exactly it, with its size."""
    import tifffile

    colors = image.ndim == 3
    length, unit = size or (None, "")
    unit = {"µm": "um", "μm": "um", "Å": "angstrom"}.get(unit, unit)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            image.view(np.uint8) if image.dtype.kind == "b" else image,
            photometric="rgb" if colors else "minisblack",
            extrasamples=("unassalpha",) if colors and image.shape[-1] == 4 else None,
            compression="zlib",
            resolution=None if length is None else (1 / length, 1 / length),
            resolutionunit="none",
            description=f"ImageJ=1.54f\nunit={unit}\n" if unit.isascii() else None,
            metadata=None,
            maxworkers=1,
            software="napari-hrdv2",
        )
