"""Kill savers at random moments: nothing is lost, and nothing left is taken for data.

Classifiers, segmentations (labels and picture, or block by block), projects, autosaves,
OME-Zarr and runs over a folder are written again and again by a process that is killed
with signal 9.
What is there afterwards must be whole, must not be older than the last save that
returned, and a run over the folder must find its micrographs and nothing else.

Run with::

    python benchmarks/kills.py [--kills 30] [KIND …]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import select
import signal
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.backbones import load_backbone
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.fingerprints import image_fingerprint
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.files import (
    ImageFile,
    find_images,
    read_labels,
    read_ome_zarr,
    run_log,
    write_image,
    write_ome_zarr,
)
from napari_hrdv2.files.labels import LabelClasses
from napari_hrdv2.session import Session, TaskContext
from napari_hrdv2.session.batch import (
    TABLE,
    ApplyRequest,
    Run,
    jobs_for,
    table_in,
    write_segmentation,
)
from napari_hrdv2.session.batch.streaming import stream_labels
from napari_hrdv2.session.project.autosave import AutosaveStore
from napari_hrdv2.session.project.snapshot import project_of
from napari_hrdv2.session.project.store import load_project, save_project

SHAPE = (61, 83)
LONGEST_WAIT = 0.05  # s after a save that has returned
OPTIONS = FeatureOptions("filters")


def numbered(count: int) -> np.ndarray:
    """Return labels of two classes with so many pixels of the second."""
    labels = np.ones(SHAPE[0] * SHAPE[1], np.uint8)
    labels[:count] = 2
    return labels.reshape(SHAPE)


def number_in(labels: np.ndarray) -> int:
    """Return how many pixels are of the second class."""
    return int((labels == 2).sum())


class Saver:
    """Saves a state that has a number, and reads the number again; 0 for nothing."""

    inputs: tuple[str, ...] = ()  # the micrographs of the folder
    longest_wait = LONGEST_WAIT

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def image(self) -> np.ndarray:
        """A micrograph, dark on the left."""
        noise = np.random.default_rng(0).integers(0, 20, SHAPE)
        return np.where(np.arange(SHAPE[1]) < 40, 60, 180).astype(np.uint8) + (
            noise.astype(np.uint8)
        )

    @cached_property
    def session(self) -> Session:
        """A session that is trained."""
        session, labels = Session(), np.zeros(SHAPE, np.uint8)
        session.configure(backbone="filters")
        session.set_image(self.image)
        labels[5:9, 4:12], labels[20:24, 60:70] = 1, 2
        session.set_scribbles(labels)
        session.compute_features()
        session.train()
        return session

    def prepare(self) -> None:
        """Do once what all savers need."""

    def save(self, count: int) -> None:
        """Write the state of this number."""
        raise NotImplementedError

    def load(self) -> int:
        """Return the number of what is there; ValueError for what is not whole."""
        raise NotImplementedError


class _ToClassifier(Saver):
    """A classifier; its number is a class name."""

    def prepare(self) -> None:
        self.classifier = self.session.named_classifier()

    def save(self, count: int) -> None:
        self.classifier.class_names = {1: "matrix", 2: str(count)}
        self.classifier.save(self.folder / "c.safetensors")

    def load(self) -> int:
        path = self.folder / "c.safetensors"
        if not path.exists():
            return 0
        return int(PixelClassifier.load(path).class_names[2])


class _ToSegmentation(Saver):
    """Labels and picture beside their micrograph."""

    inputs = ("alloy.tif",)

    def prepare(self) -> None:
        self.classifier = self.session.named_classifier()
        write_image(self.folder / "alloy.tif", self.image)

    def save(self, count: int) -> None:
        path = self.folder / "alloy_segmentation.tif"
        source = ImageFile(self.image)
        write_segmentation(path, numbered(count), self.classifier, source)

    def load(self) -> int:
        return _pair(self.folder / "alloy_segmentation.tif")


class _ToProject(Saver):
    """A project with scribbles."""

    def prepare(self) -> None:
        self.session.save_classifier(self.folder / "c.safetensors")

    def save(self, count: int) -> None:
        self.session.set_scribbles(numbered(count))
        save_project(project_of(self.session), self.folder / "alloy.hrdv2")

    def load(self) -> int:
        path = self.folder / "alloy.hrdv2"
        if not path.exists():
            return 0
        scribbles = load_project(path).images[0].scribbles
        return 0 if scribbles is None else number_in(scribbles)


class _ToAutosave(Saver):
    """A project that saves itself in a thread."""

    @cached_property
    def store(self) -> AutosaveStore:
        """The store of one process, begun when it first saves."""
        return AutosaveStore(self.folder)

    def save(self, count: int) -> None:
        self.session.set_scribbles(numbered(count))
        self.store.submit(project_of(self.session))
        self.store.flush()
        if self.store.has_failed:
            raise AssertionError("the autosave was not written")

    def prepare(self) -> None:
        self.fingerprint = image_fingerprint(self.session.image)

    def load(self) -> int:
        found = AutosaveStore(self.folder).find_autosaves(self.fingerprint)
        scribbles = load_project(found[0].path).images[0].scribbles if found else None
        return 0 if scribbles is None else number_in(scribbles)


class _ToZarr(Saver):
    """Image and labels as OME-Zarr."""

    def save(self, count: int) -> None:
        names = LabelClasses({1: "matrix", 2: "pore"}, {1: "#ff0000", 2: "#00ff00"})
        path = self.folder / "alloy.zarr"
        write_ome_zarr(path, self.image, numbered(count), names)

    def load(self) -> int:
        path = self.folder / "alloy.zarr"
        return number_in(read_ome_zarr(path).labels) if path.exists() else 0


class _ToStream(Saver):
    """Labels that go block by block into an OME-Zarr, and are gone on with."""

    longest_wait = 0.3  # about as long as all blocks take

    def save(self, count: int) -> None:
        labels = numbered(count)
        features = SimpleNamespace(shape=(1, *SHAPE), block=16, part_options=())
        classifier = SimpleNamespace(
            classes=np.array([1, 2]),
            weight=np.zeros((2, 1)),
            bias=np.array([0, count]),
            class_names={},
            predict=lambda _, region, should_stop: labels[region].copy(),
        )
        stream_labels(
            ImageFile(self.image),
            features,  # type: ignore[arg-type]
            classifier,  # type: ignore[arg-type]
            self.folder / "alloy.zarr",
            refinement=Refinement(fill_holes=2),  # there are none
            colors={1: "#ff0000", 2: "#00ff00"},
        )

    def load(self) -> int:
        path = self.folder / "alloy.zarr"
        return number_in(read_ome_zarr(path).labels) if path.exists() else 0


class _ToBatch(Saver):
    """Runs over a folder, with the results in it."""

    inputs = ("a.tif", "b.tif", "c.tif")
    longest_wait = 1.0  # a run takes about as long

    def prepare(self) -> None:
        self.classifier = self.session.named_classifier()
        for shift, name in enumerate(self.inputs):
            write_image(self.folder / name, np.roll(self.image, shift, axis=0))

    def save(self, count: int) -> None:
        files = find_images([self.folder]).files
        request = ApplyRequest(
            jobs_for(files, self.folder),
            table_in(self.folder),
            self.classifier,
            run=Run(pixel_size=(count + 1.0, "nm")),  # what is done counts no more
        )
        done = request(TaskContext())
        if any(not one.is_done for one in done) or len(done) != len(self.inputs):
            raise AssertionError([one.error for one in done])

    def load(self) -> int:
        for name in self.inputs:
            stem = Path(name).stem
            _pair(self.folder / f"{stem}_segmentation.tif")
        extra = sorted(
            path.name
            for path in self.folder.glob("[!.]*")
            if path.name.removesuffix(".png").removesuffix(".tif")
            not in {
                *("a", "b", "c", TABLE, run_log.NAME),
                *(f"{x}_segmentation" for x in "abc"),
            }
        )
        if extra:
            raise ValueError(f"a run left {extra}")
        table = self.folder / TABLE
        if table.exists():
            with open(table, encoding="utf-8", newline="") as file:
                if len(list(csv.DictReader(file))) != len(self.inputs):
                    raise ValueError("the table is not whole")
        return 0  # runs have no number: all do the same


KINDS = {
    "classifier": _ToClassifier,
    "segmentation": _ToSegmentation,
    "project": _ToProject,
    "autosave": _ToAutosave,
    "zarr": _ToZarr,
    "stream": _ToStream,
    "batch": _ToBatch,
}


def _pair(path: Path) -> int:
    """Return the number of a segmentation; ValueError if its picture is another's."""
    picture = path.with_suffix(".png")
    labels = read_labels(path) if path.exists() else None
    if picture.exists():
        with Image.open(picture) as opened:
            shown = np.asarray(opened)
        if labels is None or not np.array_equal(shown, labels):
            raise ValueError("the picture is of other labels")
    return 0 if labels is None else number_in(labels)


def killed_saver(saver: Saver, begun: int, rng: random.Random) -> list[int]:
    """Let a saver save a few times, kill it, and return what it had reported."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for count in range(begun + 1, SHAPE[0] * SHAPE[1]):
                saver.save(count)
                os.write(writing, count.to_bytes(4, "little"))
        finally:
            os._exit(1)
    os.close(writing)
    reported = b""
    for _ in range(rng.randrange(3)):
        reported += os.read(reading, 4)
    # A moment that nothing marks: here the passing of time is what is tested.
    select.select([], [], [], rng.uniform(0, saver.longest_wait))
    os.kill(child, signal.SIGKILL)
    if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        raise AssertionError("a save failed before it was killed")
    while more := os.read(reading, 4096):
        reported += more
    os.close(reading)
    starts = range(0, len(reported), 4)
    return [int.from_bytes(reported[i : i + 4], "little") for i in starts]


def kill(kind: str, folder: Path, kills: int) -> dict[str, Any]:
    """Return what became of savers of a kind that were killed so many times."""
    saver = KINDS[kind](folder)
    saver.prepare()
    rng = random.Random(0)
    certain, saves = 0, 0
    losses: list[str] = []
    strays: set[str] = set()
    for number in range(kills):
        reported = killed_saver(saver, certain, rng)
        saves += len(reported)
        certain = max([certain, *reported])
        try:
            found = saver.load()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a loss
            losses.append(f"kill {number}: {error}")
            continue
        is_counted = kind != "batch"
        if is_counted and not certain <= found <= certain + 1:
            losses.append(f"kill {number}: {found} is there, {certain} was saved")
        certain = max(certain, found)
        names = {path.name for path in find_images([folder]).files}
        strays |= names ^ set(saver.inputs)
    hidden = [path for path in folder.iterdir() if path.name.startswith(".")]
    return {
        "kills": kills,
        "saves": saves,
        "in_the_middle": len(hidden),
        "losses": losses,
        "strays": sorted(strays),
    }


def main() -> None:
    """Print what was found, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", default=list(KINDS))
    parser.add_argument("--kills", type=int, default=30)
    arguments = parser.parse_args()
    load_backbone(OPTIONS.backbone)
    found = {}
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = kill(kind, Path(folder), arguments.kills)
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
