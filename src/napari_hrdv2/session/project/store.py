"""Projects on the disk: whole files."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hrdv2.core.atomic import atomic_path, remove_leftovers
from napari_hrdv2.session.classes import ClassInfo
from napari_hrdv2.session.planes import PlaneKey

from .archive import (
    open_archive,
    read_classifier,
    read_image,
    read_record,
    write_archive,
)
from .format import SUFFIX, Fingerprints, Project

if TYPE_CHECKING:
    from .format import ProjectRecord

log = logging.getLogger(__name__)


def save_project(
    project: Project,
    path: str | os.PathLike[str],
    *,
    with_images: bool = True,
    fingerprints: Fingerprints | None = None,
) -> Path:
    """Write a project to one file, whole or not at all, and return its path.

    The suffix ``.hrdv2`` is added where it is not there. With its images a project
    opens on a machine that does not have their files.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        path = path.with_name(path.name + SUFFIX)
    whole = project.completed(fingerprints or Fingerprints(), with_images=with_images)
    remove_leftovers(path)
    with atomic_path(path) as temporary:
        write_archive(whole, temporary, path.parent)
        # A disk that lies must not cost the project that was there.
        with open_archive(temporary) as archive:
            read_record(archive)
            broken = archive.testzip()
        if broken:
            raise OSError(f"{broken} does not read back as it was written")
    return path


def load_project(path: str | os.PathLike[str]) -> Project:
    """Return the project in a file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no project, of a newer format, or damaged: the message names the part.
    """
    folder = Path(path).absolute().parent
    with open_archive(path) as archive:
        record = read_record(archive)
        images = tuple(read_image(archive, one, folder) for one in record.images)
        name, current = record.classifier, PlaneKey.parse(record.current or "")
        classifier = None if name is None else read_classifier(archive, name)
    return Project(
        images=images,
        classes={key: ClassInfo(**dict(one)) for key, one in record.classes.items()},
        options=record.options,
        classifier=classifier,
        refinement=record.refinement,
        current=current if current in [one.key for one in images] else None,
        saved_at=record.saved_at,
    )


def project_summary(path: str | os.PathLike[str]) -> ProjectRecord:
    """Return what a project says of itself, without reading any array."""
    with open_archive(path) as archive:
        return read_record(archive)
