"""A trained classifier on many micrographs: in the window, and as a command."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session.classes import default_color
from napari_hrdv2.session.planes import Plane, PlaneKey
from napari_hrdv2.session.tasks.context import TaskContext
from napari_hrdv2.session.tasks.refinement import refined
from napari_hrdv2.session.tasks.update import ImageSnapshot, PlaneDone, plane_done

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.postprocess.refinement import Refinement
    from napari_hrdv2.files import ImageFile

__all__ = [
    "TABLE",
    "Applied",
    "ApplyRequest",
    "ApplyToPlanes",
    "Job",
    "PlaneDone",
    "PlaneToDo",
    "class_colors",
    "jobs_for",
    "segment_file",
    "with_preview",
    "write_segmentation",
    "write_table",
]

TABLE = "phase_fractions.csv"


@dataclass(frozen=True)
class Job:
    """A micrograph, and the label TIFF to be made of it."""

    file: Path
    target: Path


@dataclass(frozen=True)
class Applied:
    """What became of one micrograph.

    Attributes
    ----------
    job : Job
    fractions : dict of int to float
        The share of each class.
    outputs : tuple of Path
        The files that were written.
    seconds : float
    error : str
        What went wrong, in one sentence; empty if nothing did.
    """

    job: Job
    fractions: dict[int, float] = field(default_factory=dict)
    outputs: tuple[Path, ...] = ()
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class ApplyRequest:
    """Many micrographs are to be segmented by one classifier.

    What becomes of each is told as a partial answer; the table of phase fractions holds
    those that were done, also when the rest is cancelled.

    Attributes
    ----------
    jobs : tuple of Job
    table : Path
        Where the phase fractions go, as CSV.
    classifier : PixelClassifier
    device : str
    weights : str or None
        A local file for the backbone.
    refinement : Refinement or None
        What to do with the segmentation before it is written.
    """

    jobs: tuple[Job, ...]
    table: Path
    classifier: PixelClassifier
    device: str = "auto"
    weights: str | None = None
    refinement: Refinement | None = None

    def answer(self, context: TaskContext) -> list[Applied]:
        """Segment one micrograph after the other; errors are collected, not raised."""
        from napari_hrdv2.core.errors import Cancelled

        parts = self.classifier.part_options
        options = FeatureOptions.of(parts, self.device, self.weights)
        backbone = options.load(context.loading)
        results: list[Applied] = []
        try:
            for number, job in enumerate(self.jobs):
                context.progress(f"Segmenting {job.file.name}", number, len(self.jobs))
                if context.should_stop():
                    raise Cancelled
                result = segment_file(
                    job, self.classifier, backbone, options, context, self.refinement
                )
                results.append(result)
                context.partial(result)
        finally:
            done = [result for result in results if not result.error]
            if done:
                write_table(self.table, done, self.classifier)
        return results


@dataclass(frozen=True)
class PlaneToDo:
    """A picture that is to be segmented without being shown."""

    key: PlaneKey
    name: str
    image: ArrayLike
    exclusion: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class ApplyToPlanes:
    """All planes of a stack are to be segmented by one classifier.

    Each is a partial answer as soon as it is there. Neither features nor pixels are
    kept, and the answer as a whole says no more than which could not be segmented.
    """

    planes: tuple[PlaneToDo, ...]
    classifier: PixelClassifier
    fingerprint: bytes
    device: str = "auto"
    weights: str | None = None
    refinement: Refinement | None = None

    def answer(self, context: TaskContext) -> list[PlaneDone]:
        """Segment one plane after the other; errors are collected, not raised."""
        from napari_hrdv2.core.errors import EXPECTED, explained

        parts = self.classifier.part_options
        options = FeatureOptions.of(parts, self.device, self.weights)
        backbone = options.load(context.loading)
        results = []
        for number, plane in enumerate(self.planes):
            context.progress(f"Segmenting {plane.name}", number, len(self.planes))
            try:
                done = self._segment(plane, backbone, options, context)
            except EXPECTED as error:
                done = PlaneDone(plane.key, error=f"{plane.name}: {explained(error)}")
            finally:
                if isinstance(plane.image, Plane):
                    plane.image.forget()  # a stack may be larger than the memory
            context.partial(done)
            results.append(PlaneDone(done.key, error=done.error))
        return results

    def _segment(
        self,
        plane: PlaneToDo,
        backbone: Backbone | JoinedBackbone,
        options: FeatureOptions,
        context: TaskContext,
    ) -> PlaneDone:
        from napari_hrdv2.core.features.compute import compute_with

        image = np.asarray(plane.image)
        features = compute_with(
            options, image, backbone, should_stop=context.should_stop
        )
        return plane_done(
            ImageSnapshot(plane.key, plane.name, image, features, plane.exclusion),
            self.classifier,
            self.fingerprint,
            self.refinement,
            should_stop=context.should_stop,
        )


def jobs_for(files: Sequence[Path], out: Path) -> tuple[Job, ...]:
    """Return a target in the folder `out` for each file.

    A number tells apart what would be the same file; none replaces an input.
    """
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
    backbone: Backbone | JoinedBackbone,
    options: FeatureOptions,
    context: TaskContext = TaskContext(),  # noqa: B008 - frozen
    refinement: Refinement | None = None,
) -> Applied:
    """Segment one micrograph; what went wrong with it is returned, not raised.

    Raises
    ------
    Cancelled
        If ``talk.should_stop()`` said so.
    """
    from napari_hrdv2.core.errors import EXPECTED, explained
    from napari_hrdv2.core.features.compute import compute_with
    from napari_hrdv2.core.measure.scores import phase_fractions
    from napari_hrdv2.files import read_image

    start = time.perf_counter()
    try:
        if not job.target.parent.is_dir():
            raise ValueError(f"there is no folder {job.target.parent}")
        source = read_image(job.file)
        features = compute_with(
            options, source.data, backbone, should_stop=context.should_stop
        )
        labels = classifier.predict(features, should_stop=context.should_stop)
        if refinement is not None and not refinement.is_off:
            labels = refined(
                labels,
                classifier,
                features,
                source.data,
                refinement,
                should_stop=context.should_stop,
            )
        outputs = write_segmentation(job.target, labels, classifier, source)
    except EXPECTED as error:
        text = explained(error)
        named = text if str(job.file) in text else f"{job.file}: {text}"
        return Applied(job, error=named)
    seconds = time.perf_counter() - start
    return Applied(job, phase_fractions(labels), tuple(outputs), seconds)


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
    _, entry = outputs = with_preview(path)
    write_color_png(entry, segmentation, colors)
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
    """Write the phase fractions of many micrographs as CSV, a line for each.

    That is for many files: each line names the file and its segmentation, and each
    class has a column. `core.measure.write_fractions_csv` has a line for each class of
    each image, with its error bar.
    """
    from napari_hrdv2.core.atomic import atomic_path

    ids = [int(i) for i in classifier.classes]
    names = [classifier.class_names.get(i, f"class {i}") for i in ids]
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["image", "segmentation", *names])
        for result in done:
            shares = [result.fractions.get(i, 0.0) for i in ids]
            written = result.outputs[0].name
            writer.writerow(
                [str(result.job.file), written, *(f"{s:.6f}" for s in shares)]
            )
