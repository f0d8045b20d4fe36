"""Many files: read into the window, or segmented by a trained classifier."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_hrdv2.core.atomic import atomic_paths
from napari_hrdv2.core.checks import MOST_CLASSES, with_missing
from napari_hrdv2.core.classifier import samples
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.errors import Cancelled, explained_of
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure import phase_fractions_with_error
from napari_hrdv2.core.postprocess.exclusion import SharedExclusion
from napari_hrdv2.files import (
    ImageFile,
    import_labels,
    is_ours,
    size_text,
    write_color_png,
    write_labels,
)
from napari_hrdv2.files.volumes import first_plane, mask_of, open_stack, volume_labels
from napari_hrdv2.session.classes import default_color
from napari_hrdv2.session.classifier import magnification_note
from napari_hrdv2.session.features import FeatureSource
from napari_hrdv2.session.pipeline import process_image
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.snapshots import ImageSnapshot
from napari_hrdv2.session.tasks import TaskContext

from .applied import (
    TABLE,
    Applied,
    Job,
    Run,
    log_of,
    table_in,
    write_particles,
    write_table,
)
from .opening import OpenedImage, open_images, read_labels, scribbles_with
from .streaming import Streamed, check_volume, stream_image

__all__ = [
    "TABLE",
    "Applied",
    "ApplyRequest",
    "Job",
    "OpenedImage",
    "Run",
    "class_colors",
    "jobs_for",
    "open_images",
    "read_labels",
    "scribbles_with",
    "segment_file",
    "table_in",
    "with_preview",
    "write_segmentation",
    "write_table",
]

INVERTED = (
    "light and dark were exchanged for it, as it looks like the negative of the "
    "labelled images; look at the result."
)
INVERTED_BY_LABELS = "light and dark were exchanged for it, as its scribbles say."


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
    run: Run = field(default_factory=Run)
    prepare: Callable[[TaskContext, FeatureSource], PixelClassifier] | None = None
    finish: Callable[[Sequence[Applied], PixelClassifier], object] | None = None

    def __call__(self, context: TaskContext) -> list[Applied]:
        """Segment one micrograph after the other; errors are collected, not raised.

        `prepare` makes of the classifier the one to be used, and is told as a partial
        answer; `finish` gets what is done, also when the rest is cancelled.
        """
        parts = self.classifier.part_options
        options = FeatureOptions.of(parts, self.device, self.weights)
        source, classifier = FeatureSource.load(options, context), self.classifier
        if self.prepare is not None:
            classifier = self.prepare(context, source)
            context.partial(classifier)
        log = log_of(self.table.parent, classifier, self.run, self.weights)
        results: list[Applied] = []
        try:
            for number, job in enumerate(self.jobs):
                context.progress(f"Segmenting {job.file.name}", number, len(self.jobs))
                context.stop_if_cancelled()
                also = source, self.run, context
                result = Applied.found_in(log, job)
                results.append(result or segment_file(job, classifier, *also))
                results[-1].tell(log)
                context.partial(results[-1])
        finally:
            done = [result for result in results if result.is_done]
            if done:
                write_table(self.table, done, classifier)
            if done and self.finish is not None:
                context.progress("Writing the report", 0, 0)
                self.finish(results, classifier)
        return results


def jobs_for(
    files: Sequence[Path],
    out: Path,
    endings: Sequence[str] = ("segmentation.tif", "segmentation.png"),
) -> tuple[Job, ...]:
    """Return a target in the folder `out` for each file, the same in every run.

    It ends in the first of the endings, and files with the others go with it. Only
    files that this program wrote are replaced, and none of the micrographs.
    """
    taken = {path.resolve() for path in files}
    stems = {file.stem for file in files}
    jobs = []
    for file in files:
        for number in itertools.count(1):
            stem = f"{file.stem}_{number}" if number > 1 else file.stem
            if number > 1 and stem in stems:
                continue  # the name of another file's result
            paths = [out / f"{stem}_{ending}" for ending in endings]
            written = {path.resolve() for path in paths}
            is_free = all(is_ours(path) for path in written if path.exists())
            if is_free and not written & taken:
                break
        taken |= written
        jobs.append(Job(file, paths[0]))
    return tuple(jobs)


def segment_file(
    job: Job,
    classifier: PixelClassifier,
    source: FeatureSource,
    run: Run = Run(),  # noqa: B008 - frozen
    context: TaskContext = TaskContext(),  # noqa: B008 - frozen
    stream: Callable[..., Streamed] = stream_image,
) -> Applied:
    """Segment one micrograph; what went wrong with it is returned, not raised.

    Where its features do not fit into memory, or the run says so, block by block into
    an OME-Zarr beside the target, by `stream`.
    """
    start = time.perf_counter()
    try:
        if not job.target.parent.is_dir():
            raise ValueError(f"there is no folder {job.target.parent}")
        trained = classifier.pixel_size
        file, ratio, by_blocks = run.opened(job.file, source.options, trained)
        if what := _labels_in(job.file, file.data, classifier):
            return Applied(job, left_out=f"{job.file} was left out: {what}")
        shared, shape = run.exclusion, first_plane(file.data).shape
        mask = mask_of(shared, file.data)
        size, is_volume = file.size, hasattr(file.data, "volume_shape")
        resamples = run.resamples and not is_volume
        about = magnification_note(trained, size, resamples=resamples)
        notes = _notes(job.file, about, shape, shared)
        has_particles, count = run.particles is not None, len(classifier.classes)
        check_volume(file.data, run.refinement, has_particles, count)
        if by_blocks:
            streamed = stream(
                file,
                classifier,
                source,
                job.target.with_suffix(".zarr"),
                context,
                pixel_ratio=ratio,
                exclusion=mask,
                refinement=run.refinement,
                colors=class_colors(classifier),
            )
            fractions, outputs = streamed.by_class, [streamed.path]
            measured, doubt = streamed.fractions, streamed.doubt
            is_inverted = streamed.is_inverted
            segmentation: Any = open_stack(streamed.path).data
            if streamed.was_there:
                there = f"{streamed.was_there} of {streamed.blocks} blocks"
                notes += (f"{job.file}: {there} were done by an earlier run.",)
        else:
            file = replace(file, data=np.asarray(file.data))
            result = process_image(
                ImageSnapshot(
                    PlaneKey(str(job.file)),
                    file.data,
                    exclusion=with_missing(mask, file.data),
                    pixel_size=size,
                ),
                classifier,
                run.refinement,
                context=context,
                source=source,
                resamples=run.resamples,
            )
            fractions, doubt = result.fractions, result.doubt
            is_inverted = result.is_inverted
            outputs = write_segmentation(job.target, result.shown, classifier, file)
            segmentation = result.shown
            measured = phase_fractions_with_error(
                segmentation, [int(i) for i in classifier.classes]
            )
        if is_inverted:
            why = INVERTED_BY_LABELS if doubt is None else INVERTED
            notes += (f"{job.file}: {why}",)
        if run.particles is not None:
            stem = job.target.stem.removesuffix("_segmentation")
            outputs.append(job.target.with_name(f"{stem}_particles.csv"))
            given = segmentation, run.particles, size, mask, context.stop_if_cancelled
            write_particles(outputs[-1], *given)
    except Cancelled:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of one file is not of all
        return Applied(job, error=explained_of(job.file, error))
    seconds = time.perf_counter() - start
    applied = Applied(
        job,
        fractions,
        tuple(outputs),
        seconds,
        notes=notes,
        measured=measured,
        doubt=doubt,
        pixel_size=size,
        is_labelled=not is_volume and doubt is None and bool(classifier.trained_on),
    )
    return applied.with_reason(classifier)


def _labels_in(path: Path, image: Any, classifier: PixelClassifier) -> str:
    """Return what labels a file holds in place of a micrograph, "" for none."""
    if image.ndim > 2 or image.dtype.kind not in "bui":
        return ""
    seen: set[int] = set()
    for start in range(0, image.shape[0], 1008):  # many of 7
        seen |= set(np.unique(image[start : start + 1008 : 7, ::7]).tolist())
        if len(seen) > MOST_CLASSES + 1:
            return ""
    try:
        if hasattr(image, "volume_shape"):
            labels = volume_labels(path, image).labels
        else:
            labels = import_labels(path, (image.shape[0], image.shape[1])).labels
    except (OSError, ValueError, MemoryError):
        return ""
    if samples.fingerprint([labels]) == classifier.labels_hash:
        return "the classifier was trained on its labels"
    ids = set(np.unique(labels).tolist()) - {0}
    if ids and image.dtype.kind != "b" and ids <= set(classifier.classes.tolist()):
        return "it holds nothing but labels of the classifier's classes"
    return ""


def _notes(
    path: Path,
    magnification: str,
    shape: tuple[int, ...],
    exclusion: SharedExclusion | None,
) -> tuple[str, ...]:
    notes = [magnification]
    if exclusion is not None and exclusion.shape != shape[:2]:
        sizes = size_text(shape[:2]), size_text(exclusion.shape)
        seen = "It is {} and the exclusion mask {}".format(*sizes)
        notes.append(f"{seen} (width × height): nothing of it is excluded.")
    return tuple(f"{path}: {note}" for note in notes if note)


def write_segmentation(
    path: Path, segmentation: Any, classifier: PixelClassifier, source: ImageFile
) -> list[Path]:
    """Write the label TIFF and, beside it, a PNG to look at; return the paths.

    Labels that are read in parts have no PNG.
    """
    colors, outputs = class_colors(classifier), with_preview(path)
    outputs = outputs if isinstance(segmentation, np.ndarray) else [path]
    with atomic_paths(*outputs) as (labels, *preview):
        write_labels(
            labels,
            segmentation,
            pixel_size=source.pixel_size,
            unit=source.unit,
            class_names=classifier.class_names,
            class_colors=colors,
        )
        for each in preview:
            write_color_png(each, segmentation, colors)
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
