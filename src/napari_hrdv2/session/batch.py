"""Many files: read into the window, or segmented by a trained classifier."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.checks import MOST_CLASSES
from napari_hrdv2.core.features.options import FeatureOptions

from .classes import (
    Classes,
    ClassInfo,
    default_class,
    default_color,
    matched_classes,
    relabelled,
)
from .features import FeatureSource
from .pipeline import process_image
from .planes import PlaneKey
from .snapshots import ImageSnapshot
from .tasks import TaskContext

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.files import ImageFile, ImportedLabels

    from .images import Images

TABLE = "phase_fractions.csv"


@dataclass(frozen=True)
class OpenedImage:
    """A micrograph and the file that it was read from."""

    path: str
    image: ImageFile


def open_images(context: TaskContext, *, paths: Sequence[str]) -> list[str]:
    """Read files; each is a partial answer, the answer says which cannot be read."""
    from napari_hrdv2.files import read_image

    problems = []
    for count, path in enumerate(paths):
        context.stop_if_cancelled()
        context.progress(f"Reading {Path(path).name}", count, len(paths))
        try:
            context.partial(OpenedImage(path, read_image(path)))
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return problems


def read_labels(
    context: TaskContext, *, path: Path, shape: tuple[int, int], image_name: str
) -> ImportedLabels:
    """Read labels for an image; files of several images know it by its name."""
    from napari_hrdv2.files import import_labels

    context.progress(f"Reading {path.name}", 0, 1)
    try:
        return import_labels(path, shape, image_name=image_name)
    except ImportError as error:  # its text names the extra
        raise ValueError(str(error)) from error


def scribbles_with(
    images: Images,
    classes: Classes,
    key: PlaneKey | str,
    labels: NDArray[Any],
    *,
    names: Mapping[int, str] | None = None,
    colors: Mapping[int, str] | None = None,
) -> NDArray[Any]:
    """Return the scribbles of an image with labels painted over them."""
    entry, names, colors = images[key], names or {}, colors or {}
    labels = np.asarray(labels)
    if labels.shape != entry.shape:
        raise ValueError(
            f"labels: shape {labels.shape} is not that of the image, {entry.shape}"
        )
    ids = [int(i) for i in np.unique(labels) if i]
    if len(ids) > MOST_CLASSES or (ids and ids[0] < 0):
        raise ValueError(
            f"labels: there are {len(ids)} of them from {ids[0]} to {ids[-1]}, which "
            "are objects rather than classes; up to 64 from 1 can be scribbles"
        )
    if not ids:
        raise ValueError("labels: nothing is painted in them; choose others")
    theirs = {
        i: ClassInfo(names[i], colors.get(i) or default_class(i).color)
        for i in ids
        if names.get(i)
    }
    if theirs and not any(one.class_ids for one in images.values()):
        classes.ensure(theirs, names=names, colors=colors)
    elif theirs:
        labels = relabelled(labels, matched_classes(classes, theirs))
    if entry.scribbles is None:
        return labels
    return np.where(labels == 0, entry.scribbles.labels, labels)


@dataclass(frozen=True)
class Job:
    """A micrograph, and the label TIFF to be made of it."""

    file: Path
    target: Path


@dataclass(frozen=True)
class Applied:
    """What became of one micrograph."""

    job: Job
    fractions: dict[int, float] = field(default_factory=dict)
    outputs: tuple[Path, ...] = ()  # the files that were written
    seconds: float = 0.0
    error: str = ""  # what went wrong, in one sentence


@dataclass(frozen=True)
class ApplyRequest:
    """Many micrographs are to be segmented by one classifier.

    What becomes of each is told as a partial answer; the table of phase fractions holds
    those that were done, also when the rest is cancelled.
    """

    jobs: tuple[Job, ...]
    table: Path
    classifier: PixelClassifier
    device: str = "auto"
    weights: str | None = None
    refinement: Refinement | None = None

    def __call__(self, context: TaskContext) -> list[Applied]:
        """Segment one micrograph after the other; errors are collected, not raised."""
        parts = self.classifier.part_options
        options = FeatureOptions.of(parts, self.device, self.weights)
        source = FeatureSource.load(options, context)
        results: list[Applied] = []
        try:
            for number, job in enumerate(self.jobs):
                context.progress(f"Segmenting {job.file.name}", number, len(self.jobs))
                context.stop_if_cancelled()
                results.append(
                    segment_file(job, self.classifier, source, self.refinement, context)
                )
                context.partial(results[-1])
        finally:
            done = [result for result in results if not result.error]
            if done:
                write_table(self.table, done, self.classifier)
        return results


def jobs_for(files: Sequence[Path], out: Path) -> tuple[Job, ...]:
    """Return a target in the folder `out` for each file."""
    taken = {path.resolve() for path in files}
    stems = {file.stem for file in files}
    jobs = []
    for file in files:
        for number in itertools.count(1):
            stem = f"{file.stem}_{number}" if number > 1 else file.stem
            if number > 1 and stem in stems:
                continue  # the name of another file's result
            target = out / f"{stem}_segmentation.tif"
            written = {path.resolve() for path in with_preview(target)}
            if not written & taken:
                break
        taken |= written
        jobs.append(Job(file, target))
    return tuple(jobs)


def segment_file(
    job: Job,
    classifier: PixelClassifier,
    source: FeatureSource,
    refinement: Refinement | None = None,
    context: TaskContext = TaskContext(),  # noqa: B008 - frozen
) -> Applied:
    """Segment one micrograph; what went wrong with it is returned, not raised."""
    from napari_hrdv2.core.errors import EXPECTED, explained
    from napari_hrdv2.files import read_image

    start = time.perf_counter()
    try:
        if not job.target.parent.is_dir():
            raise ValueError(f"there is no folder {job.target.parent}")
        file = read_image(job.file)
        result = process_image(
            ImageSnapshot(PlaneKey(str(job.file)), file.data),
            classifier,
            refinement,
            context=context,
            source=source,
        )
        outputs = write_segmentation(job.target, result.shown, classifier, file)
    except EXPECTED as error:
        text = explained(error)
        named = text if str(job.file) in text else f"{job.file}: {text}"
        return Applied(job, error=named)
    seconds = time.perf_counter() - start
    return Applied(job, result.fractions, tuple(outputs), seconds)


def write_segmentation(
    path: Path,
    segmentation: NDArray[Any],
    classifier: PixelClassifier,
    source: ImageFile,
) -> list[Path]:
    """Write the label TIFF and, beside it, a PNG to look at; return both paths."""
    from napari_hrdv2.files import write_color_png, write_labels

    colors = class_colors(classifier)
    write_labels(
        path,
        segmentation,
        pixel_size=source.pixel_size,
        unit=source.unit,
        class_names=classifier.class_names,
        class_colors=colors,
    )
    _, preview = outputs = with_preview(path)
    write_color_png(preview, segmentation, colors)
    return outputs


def with_preview(path: Path) -> list[Path]:
    """Return the two files of a segmentation: labels, and the PNG to look at."""
    return [path, path.with_suffix(".png")]


def class_colors(classifier: PixelClassifier) -> dict[int, str]:
    """Return the colour of each class: its own, or the default of its number."""
    return {
        int(i): classifier.class_colors.get(int(i)) or default_color(int(i))
        for i in classifier.classes
    }


def write_table(
    path: Path, done: Iterable[Applied], classifier: PixelClassifier
) -> None:
    """Write the phase fractions of many micrographs as CSV, a line for each."""
    from napari_hrdv2.core.atomic import atomic_path

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
        writer.writerow(["image", "segmentation", *names])
        for result in done:
            fractions = [result.fractions.get(i, 0.0) for i in ids]
            row = str(result.job.file), result.outputs[0].name
            writer.writerow([*row, *(f"{one:.6f}" for one in fractions)])
