"""Micrographs read from files while the window goes on: request and answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_hrdv2.files import ImageFile
    from napari_hrdv2.session.tasks.context import TaskContext


@dataclass(frozen=True)
class OpenedImage:
    """A micrograph and the file that it was read from."""

    path: str
    image: ImageFile


@dataclass(frozen=True)
class OpenRequest:
    """Some files are to be read; each is a part of the answer as soon as it is there.

    The answer is a list of sentences, one for each file that cannot be read.
    """

    paths: tuple[str, ...]

    def answer(self, context: TaskContext) -> list[str]:
        """Read one file after the other."""
        from napari_hrdv2.core.errors import Cancelled
        from napari_hrdv2.files import read_image

        problems = []
        for count, path in enumerate(self.paths):
            if context.should_stop():
                raise Cancelled
            context.progress(f"Reading {Path(path).name}", count, len(self.paths))
            try:
                context.partial(OpenedImage(path, read_image(path)))
            except (OSError, ValueError) as error:
                problems.append(str(error))
        return problems
