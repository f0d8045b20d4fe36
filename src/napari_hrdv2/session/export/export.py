"""Results as files: which images, which formats, and writing them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.options import (
    FeatureOptions,
    ValueRange,
    absolute_range,
    mapped_range,
)
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.files.units import unit_symbol
from napari_hrdv2.session.images import ImageEntry, has_regions, resolved
from napari_hrdv2.session.pipeline import PipelineInput, ProcessedImage
from napari_hrdv2.session.refinement import Update
from napari_hrdv2.session.session import Session
from napari_hrdv2.session.tasks import TaskContext, compute

from .content import ExportContent, ExportImage, Provenance
from .formats import CLASSIFIER, FORMATS, ExportFormat

INTERVAL = "95 % confidence interval"


@dataclass(frozen=True)
class Exported:
    """The files that were written, and what could not be, one sentence each."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The same in words."""
        folder = self.paths[0].parent if self.paths else None
        written = f"{len(self.paths)} files written to {folder}." if folder else ""
        return " ".join(filter(None, (written, *self.notes)))


@dataclass(frozen=True, eq=False)
class Export:
    """Results that are to be written in some formats."""

    content: ExportContent
    formats: tuple[ExportFormat, ...]
    update: PipelineInput | None = None  # what brings the images up to date first
    notes: tuple[str, ...] = ()  # what is known already not to be written

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.content.folder

    def existing(self) -> list[Path]:
        """Return the files that would be replaced."""
        targets = (path for one in self.formats for path in one.targets(self.content))
        return [path for path in dict.fromkeys(targets) if path.exists()]

    def __call__(self, context: TaskContext) -> Exported:
        """Write one file after the other, each whole or not at all."""
        content, notes = self._up_to_date(context)
        count = len(content.images)
        content = replace(content, step=context.stop_if_cancelled)
        content.folder.mkdir(parents=True, exist_ok=True)
        paths: list[Path] = []
        for number, one in enumerate(self.formats):
            context.progress("Exporting", number * count, len(self.formats) * count)
            content.step()
            try:
                paths += one.write(content)
            except ImportError as error:  # an extra that was not installed
                notes.append(f"{error}.")
        return Exported(tuple(dict.fromkeys(paths)), tuple(dict.fromkeys(notes)))

    def _up_to_date(self, context: TaskContext) -> tuple[ExportContent, list[str]]:
        """Return the content with results that are all made in the same way."""
        notes = list(self.notes)
        if self.update is None:
            return self.content, notes
        done: list[ProcessedImage] = []
        self.update(replace(context, partial=done.append))
        by_key = {one.key: one for one in done}
        images, failed = [], []
        for image in self.content.images:
            now = by_key.get(image.key)
            if now is not None and now.result is not None and image.is_wanted:
                image = replace(image, segmentation=now.result.shown)
            elif now is not None and now.result is None:
                failed.append(f"{now.error}.")
                if not image.trains:
                    continue
                # The script needs it.
                image = replace(image, segmentation=None, is_wanted=False)
            images.append(image)
        if not any(image.is_wanted for image in images):
            raise ValueError(" ".join(failed).removesuffix("."))
        return replace(self.content, images=tuple(images)), notes + failed


def export_all(
    session: Session,
    folder: str | os.PathLike[str],
    *,
    formats: Collection[str] | None = None,
    all_images: bool = False,
    replace: bool = False,
) -> Exported:
    """Write results into a folder, here and now.

    Parameters
    ----------
    session : Session
    folder : path-like
        It is made if it is not there.
    formats : collection of str, optional
        Names of `FORMATS`; all by default.
    all_images : bool, optional
        All, in place of the current one. They are segmented by the present classifier
        and refined alike first; a note names those that cannot be.
    replace : bool, optional
        Whether files that are there may be replaced.

    Raises
    ------
    FileExistsError
        If files are there that would be replaced.
    OSError
        If a file cannot be written.
    ValueError
        If there is nothing to export, or `formats` names something else.
    """
    export = plan_export(session, folder, formats=formats, all_images=all_images)
    there = export.existing()
    if there and not replace:
        raise FileExistsError(
            f"folder: {export.folder} has {', '.join(path.name for path in there)} "
            "already; choose another one, or allow it to be replaced"
        )
    exported: Exported = compute(export)
    return exported


def plan_export(
    session: Session,
    folder: str | os.PathLike[str],
    *,
    formats: Collection[str] | None = None,
    all_images: bool = False,
) -> Export:
    """Return what writes results; arguments and errors as `export_all`."""
    known = {one.name: one for one in FORMATS}
    chosen = list(known) if formats is None else list(formats)
    unknown = sorted(set(chosen) - set(known))
    if unknown or not chosen:
        seen = ", ".join(unknown) or "nothing"
        raise ValueError(f"formats: {seen} is not in {', '.join(known)}")
    entries = list(session.images.values()) if all_images else [session.current]
    update = session.refinement.update_of(
        (one for one in entries if one is not None),
        options=_options(session) if all_images else None,
    )
    notes = [update.note] if all_images else []
    wanted = list(update.images)
    if not wanted and update.skipped:  # as it is, rather than nothing
        wanted, notes = [*update.skipped], []
    if not wanted:
        raise ValueError(
            "segmentation: there is none to export yet; compute features and paint two "
            "classes first"
        )
    images = _images(session, wanted)
    refined = _refinements(session, wanted)
    reason = _no_script(session, images, update) if "script" in chosen else ""
    if "script" in chosen and len(refined) > 1:
        reason = reason or "the images are refined in different ways; export each alone"
    if reason and set(chosen) == {"script"}:
        raise ValueError(f"script: {reason}")
    notes += [f"No script was written: {reason}."] if reason else []
    has_script = "script" in chosen and not reason
    content = ExportContent(
        folder=Path(folder),
        images=tuple(images),
        classes=dict(session.classes),
        provenance=_provenance(session, images, *refined) if has_script else None,
        classifier=session.named_classifier()
        if has_script and session.is_loaded
        else None,
    )
    writers = tuple(one for one in FORMATS if one.name in chosen)
    return Export(content, writers, update.request, tuple(filter(None, notes)))


def _options(session: Session) -> FeatureOptions | None:
    """Return the options that make the features of the classifier."""
    classifier, used = session.classifier, session.options_in_use
    if classifier is None or not classifier.part_options:
        return None
    made = FeatureOptions.of(classifier.part_options, used.device, used.weights)
    keeps = used.resamples and not has_regions(used)  # as `resolved`
    return replace(made, pixel_size=used.pixel_size if keeps else None)


def _no_script(session: Session, images: Sequence[ExportImage], update: Update) -> str:
    """Return why nobody can say how the results were made, or ""."""
    classifier = session.classifier
    if classifier is None:
        return "there is no classifier any more; paint two classes and segment first"
    if not classifier.part_options:
        return "nothing is known of how the features were made; compute them first"
    if not update.images:
        return (
            "the result is of an older classifier, or refined otherwise than "
            "Refine says; compute the features of this image first"
        )
    if any(image.channels and not image.source for image in images):
        return "channels are read from a file, which an image has not"
    if not session.is_loaded and not any(image.trains for image in images):
        return "no image has scribbles that the classifier was trained on"
    return ""


def _images(session: Session, wanted: Sequence[ImageEntry]) -> list[ExportImage]:
    """Return the images that trained, in that order, and those that are wanted."""
    trained = [] if session.is_loaded else session.images.usable()
    if not trained and not session.is_loaded:
        trained = session.images.painted()
    found: list[ExportImage] = []
    for entry in [*trained, *(one for one in wanted if one not in trained)]:
        is_wanted = entry in wanted
        counted = entry.counted if entry in trained else None
        result = entry.result if is_wanted and entry.is_segmented else None
        size, painted = entry.pixel_size, entry.scribbles
        made = entry.options or resolved(entry, session.options_in_use)
        stem = stem_of(entry, {image.stem for image in found})
        found.append(
            ExportImage(
                name=entry.name or stem,
                stem=stem,
                image=entry.image,
                key=entry.key,
                channels=entry.channels,
                source=entry.source if entry.source and not entry.plane else None,
                pixel_size=None if size is None else (size[0], unit_symbol(size[1])),
                pixel_ratio=made.pixel_ratio,
                value_range=_value_range(entry, session.classifier),
                segmentation=None if result is None else result.shown,
                scribbles=painted.labels if painted and painted.class_ids else None,
                scribble_pixels={} if counted is None else counted.counts,
                exclusion=entry.left_out,
                is_wanted=is_wanted,
            )
        )
    return found


def _value_range(
    entry: ImageEntry, classifier: PixelClassifier | None
) -> ValueRange | None:
    """Return the grey levels that became 0 and 1 in the features of an image."""
    features = entry.training_features
    if features is not None and features.part_options:
        return mapped_range(features.part_options)
    return absolute_range(classifier.part_options) if classifier is not None else None


def _refinements(
    session: Session, entries: Iterable[ImageEntry]
) -> set[Refinement | None]:
    """Return how images are refined: in blocks as they are, others as one wants now."""
    now, results = session.refinement.settings, [one.result for one in entries]
    made = (
        now if one is None or one.blocks is None else one.refinement or Refinement()
        for one in results
    )
    return {None if one.is_off else one for one in made}


def _provenance(
    session: Session, images: Sequence[ExportImage], refinement: Refinement | None
) -> Provenance:
    """Return how the results were made."""
    classifier = session.classifier
    assert classifier is not None  # else there is no script
    series = None if session.is_loaded else session.series.classifier
    used = {int(i) for i in classifier.classes}.union(
        *(image.scribble_pixels for image in images)
    )
    return Provenance(
        options=FeatureOptions.of(
            classifier.part_options, weights=session.options_in_use.weights
        ),
        weights_hashes=tuple(part.weights_hash for part in classifier.part_options),
        is_standardised=not all(p.absolute_levels for p in classifier.part_options),
        series=None if series is None else series.normalisation,
        classes={i: info for i, info in session.classes.items() if i in used},
        C=classifier.C,
        balanced=classifier.balanced,
        self_training=classifier.self_training,
        by_place=classifier.by_place,
        classifier_file=CLASSIFIER if session.is_loaded else None,
        labels_hash=classifier.labels_hash,
        refinement=refinement,
        interval=INTERVAL,
    )


def stem_of(entry: ImageEntry, taken: Collection[str] = ()) -> str:
    """Return what the names of an image's files begin with; none that is taken."""
    name = Path(entry.source).stem if entry.source else entry.name
    plane = "".join(f"_{axis}{i}" for axis, i in entry.plane.items())
    stem = re.sub(r"[^\w-]+", "_", f"{name or 'image'}{plane}").strip("_") or "image"
    return free_name(stem, taken)


def free_name(stem: str, taken: Collection[str]) -> str:
    """Return a name, numbered where it is taken."""
    names = (stem if n == 1 else f"{stem}_{n}" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
