"""What became of many micrographs: told, logged and listed."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2 import __version__
from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure import particle_table
from napari_hrdv2.core.measure.fractions import (
    FRACTION_HEADERS,
    Fractions,
    PhaseFraction,
)
from napari_hrdv2.core.measure.particle_blocks import block_particle_table
from napari_hrdv2.core.postprocess.exclusion import SharedExclusion
from napari_hrdv2.core.postprocess.instances import instances
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.core.series import REVISION
from napari_hrdv2.core.series.doubt import FLAGGED_FROM
from napari_hrdv2.files import ImageFile
from napari_hrdv2.files.folders import own_path
from napari_hrdv2.files.label_store import grid
from napari_hrdv2.files.run_log import RunLog
from napari_hrdv2.files.units import pixel_ratio
from napari_hrdv2.files.volumes import open_stack
from napari_hrdv2.session.classifier import PixelSize

from .streaming import is_by_blocks

TABLE = "phase_fractions.csv"
BLOCK = 2048  # pixels along each side, that particles are looked for in at once
_COLUMNS = "image", "segmentation"  # before the classes
RARE = 0.03  # a fraction, below which a class that is rightly rare raises doubt
DOUBT_HEADERS = "doubt (probability of a mean IoU below 0.5)", "flagged"


@dataclass(frozen=True)
class Job:
    """A micrograph, and the label TIFF to be made of it."""

    file: Path
    target: Path


@dataclass(frozen=True)
class Run:
    """What is the same for all micrographs of a run."""

    refinement: Refinement | None = None
    exclusion: SharedExclusion | None = None
    pixel_size: tuple[float, str] | None = None  # in place of what the files say
    particles: int | None = None  # the class whose particles go into tables
    blocks: bool = False  # even where the features fit into memory
    resamples: bool = True  # an image of another pixel size to that of the training

    def opened(
        self, path: Path, options: FeatureOptions, trained: PixelSize | None
    ) -> tuple[ImageFile, tuple[float, float] | None, bool]:
        """Return a file, by what it is to be resampled, and if it goes by blocks."""
        file = open_stack(path, options.channels, options.planes)
        if self.pixel_size is not None:
            file = replace(file, pixel_size=self.pixel_size[0], unit=self.pixel_size[1])
        ratio = None
        if self.resamples and not hasattr(file.data, "volume_shape"):
            ratio = pixel_ratio(file.size, trained)
        return file, ratio, self.blocks or is_by_blocks(file.data, options, ratio)

    def described(self, options: FeatureOptions) -> dict[str, object]:
        """Return the settings, by what they are called."""
        told: dict[str, object] = {
            "backbone": options.backbone,
            "transforms": ", ".join(options.transform_sets),
            "stride": options.stride or "patch",
            "interpolation": options.interpolation,
        }
        for name, value in (asdict(self.refinement) if self.refinement else {}).items():
            told[name.replace("_", " ")] = value
        if self.exclusion is not None:
            told["excluded (top, left, bottom, right)"] = self.exclusion.rectangles
            told["of images of (height, width)"] = self.exclusion.shape
        if self.pixel_size is not None:
            told["pixel size"] = f"{self.pixel_size[0]:g} {self.pixel_size[1]}"
        told["images of another pixel size"] = (
            "resampled" if self.resamples else "as is"
        )
        return told


@dataclass(frozen=True)
class Applied:
    """What became of one micrograph."""

    job: Job
    fractions: dict[int, float] = field(default_factory=dict)
    outputs: tuple[Path, ...] = ()  # the files that were written
    seconds: float = 0.0
    error: str = ""  # what went wrong, in one sentence
    left_out: str = ""  # why it is no micrograph, in one sentence
    notes: tuple[str, ...] = ()  # what to mind about it, a sentence each
    measured: Fractions | None = None
    doubt: float | None = None  # see `Reading`; None where it is not known
    pixel_size: PixelSize | None = None
    is_labelled: bool = False  # it trained the classifier
    was_there: bool = False  # from a former run with the same settings

    @property
    def is_done(self) -> bool:
        """Whether there is a segmentation."""
        return bool(self.outputs)

    @property
    def is_flagged(self) -> bool:
        """Whether it is so unlike the labelled images that it should be looked at."""
        return self.doubt is not None and self.doubt >= FLAGGED_FROM

    def with_reason(self, classifier: PixelClassifier) -> Applied:
        """Return it with a note if it is flagged and a class hardly occurs in it.

        Whether rightly, doubt cannot tell.
        """
        names = [
            classifier.class_names.get(i, f"class {i}")
            for i in map(int, classifier.classes)
            if self.fractions.get(i, 0.0) < RARE
        ]
        if not self.is_flagged or not names:
            return self
        found = f"{self.job.file}: hardly any {' or '.join(names)} was found"
        return replace(self, notes=(*self.notes, f"{found}, which doubt counts; look."))

    @classmethod
    def found_in(cls, log: RunLog, job: Job) -> Applied | None:
        """Return what a former run made of a micrograph, if that is there still."""
        told = log.find(job.file)
        if told is None or Path(told["outputs"][0]).stem != job.target.stem:
            return None
        measured = dict(told["measured"])
        phases = tuple(PhaseFraction(**one) for one in measured.pop("phases"))
        sides, unit = told["pixel_size"] or (None, "")
        sides = tuple(sides) if isinstance(sides, list) else sides
        return cls(
            job,
            {int(i): fraction for i, fraction in told["fractions"].items()},
            tuple(job.target.with_name(name) for name in told["outputs"]),
            told["seconds"],
            notes=tuple(told["notes"]),
            measured=Fractions(phases, **measured),
            doubt=told["doubt"],
            pixel_size=sides and (sides, unit),
            is_labelled=told["is_labelled"],
            was_there=True,
        )

    def tell(self, log: RunLog) -> None:
        """Write into a log what became of it, if it is done."""
        if not self.is_done or self.was_there or self.measured is None:
            return
        names = "fractions", "seconds", "notes", "doubt", "is_labelled"
        told = {name: getattr(self, name) for name in names}
        told["measured"], told["pixel_size"] = asdict(self.measured), self.pixel_size
        told["outputs"] = [path.name for path in self.outputs]
        log.add(self.job.file, self.outputs, told)


def log_of(folder: Path, classifier: PixelClassifier, *settings: object) -> RunLog:
    """Return the log of what this classifier did in a folder, with these settings."""
    hashed = hashlib.sha256(repr((__version__, REVISION, *settings)).encode())
    for array in (classifier.weight, classifier.bias, classifier.classes):
        hashed.update(np.ascontiguousarray(array).tobytes())
    about = ("part_options", "normalisation", "class_names", "class_colors")
    for name in (*about, "pixel_size", "labels_hash"):
        hashed.update(repr(getattr(classifier, name)).encode())
    return RunLog(folder, hashed.hexdigest())


def most_doubtful(results: Iterable[Applied]) -> Applied | None:
    """Return the image to label next; None where nothing tells."""
    known = [one for one in results if one.doubt is not None]
    return max(known, key=lambda one: one.doubt or 0, default=None)


def write_particles(
    path: Path,
    segmentation: Any,
    class_id: int,
    pixel_size: PixelSize | None,
    exclusion: NDArray[np.bool_] | None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Write the table of the connected objects of a class, also of a volume.

    An image that is no array is read block by block.
    """
    starts = b"label,area", b"label,volume"
    if path.exists() and not path.read_bytes().startswith(starts):
        raise ValueError(
            f"{path} was not written by napari-hrdv2, so it is not replaced"
        )
    about: dict[str, Any] = {"pixel_size": pixel_size, "exclusion": exclusion}
    if shape := getattr(segmentation, "volume_shape", None):
        about["depth"] = segmentation.depth_in(pixel_size[1]) if pixel_size else None
        about["exclusion"] = None if exclusion is None else exclusion.reshape(shape)
        segmentation = np.asarray(segmentation).reshape(shape)
    if isinstance(segmentation, np.ndarray):
        found = instances(segmentation, class_id, exclusion=about["exclusion"])
        table = particle_table(found, **about)
    else:
        read, blocks = segmentation.__getitem__, list(grid(segmentation.shape, BLOCK))
        table = block_particle_table(read, blocks, class_id, tick=tick, **about)
    table.write_csv(path)


def table_in(out: Path) -> Path:
    """Return where the table goes: in place of a former one, and of nothing else."""
    starts = ",".join(_COLUMNS), ",".join(FRACTION_HEADERS)
    return own_path(out / TABLE, lambda text: text.startswith(starts))


def write_table(
    path: Path, done: Iterable[Applied], classifier: PixelClassifier
) -> None:
    """Write the phase fractions of many micrographs as CSV, a line for each."""
    ids = [int(i) for i in classifier.classes]
    names = [classifier.class_names.get(i, f"class {i}") for i in ids]
    with (
        atomic_path(path) as temporary,
        # Names of files need not be text.
        open(
            temporary, "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file,
    ):
        writer = csv.writer(file)
        errors = [f"{name} error (half width, 95 %)" for name in names]
        writer.writerow([*_COLUMNS, *names, *errors, *DOUBT_HEADERS])
        for result in done:
            fractions = [result.fractions.get(i, 0.0) for i in ids]
            bars = {} if result.measured is None else result.measured.errors
            row = str(result.job.file), result.outputs[0].name
            told = *fractions, *(bars.get(i) for i in ids), result.doubt
            numbers = ["" if one is None else f"{one:.6f}" for one in told]
            writer.writerow([*row, *numbers, "yes" if result.is_flagged else ""])
