"""What commands share: how they report, compute features and check their arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.high_resolution import Features
    from napari_hrdv2.core.features.options import FeatureOptions


@dataclass(frozen=True)
class Report:
    """What a command prints: text for people, or one JSON object for programs.

    With `as_json` all text goes to standard error, so that the JSON object is the last
    line, and the only one, of standard output.
    """

    as_json: bool

    def say(self, text: str = "") -> None:
        """Print a line for people."""
        typer.echo(text, err=self.as_json)

    def note(self, text: str) -> None:
        """Print a line for whoever waits at a terminal."""
        if sys.stderr.isatty():
            typer.echo(text, err=True)

    def complain(self, text: str) -> None:
        """Print a line about something that went wrong."""
        typer.echo(f"napari-hrdv2: {text}", err=True)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Print the result as JSON if that was asked for."""
        if self.as_json:
            typer.echo(json.dumps(result, allow_nan=False))

    def progress(self, task: str) -> Callable[[int, int], None]:
        """Return ``progress(done, total)``, which draws a bar if in a terminal."""
        last = ""

        def draw(done: int, total: int) -> None:
            nonlocal last
            part = min(done / total, 1.0) if total else 0.0
            line = f"\r{task}  {'━' * round(30 * part):╌<30} {part:4.0%}"
            if part >= 1:
                line = "\r\033[K"  # leave no trace
            if line != last:
                sys.stderr.write(line)
                sys.stderr.flush()
                last = line

        return draw if sys.stderr.isatty() else lambda done, total: None


def by_id(values: Mapping[int, Any]) -> dict[str, Any]:
    """Return a mapping as JSON has it: its ids are strings."""
    return {str(i): value for i, value in values.items()}


def load(options: FeatureOptions, report: Report) -> Backbone | JoinedBackbone:
    """Load the backbone, downloading it with a progress bar if need be."""
    if options.weights is None:
        say_licences(options.backbone.split("+"), report.note)
    return options.load(report.progress(f"downloading {options.backbone}"))


def say_licences(names: list[str], say: Callable[[str], None]) -> None:
    """Say what is about to be downloaded, from where and under which licence."""
    from napari_hrdv2.core.backbones import backbone_info, backbone_state

    states = {name: backbone_state(name) for name in names}  # all names, before any
    for name, state in states.items():
        info = backbone_info(name)
        if state in ("download", "gated"):
            size = f"{info.download_bytes / 1e6:.0f} MB" if info.download_bytes else "?"
            say(f"{name}: {info.source}, {size}, licence: {info.licence}")


def train(
    image: NDArray[Any],
    scribbles: NDArray[Any],
    backbone: Backbone | JoinedBackbone,
    options: FeatureOptions,
    report: Report,
) -> tuple[Features, PixelClassifier]:
    """Return the features of an image and the classifier of its scribbles."""
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.compute import compute_with

    features = compute_with(options, image, backbone, report.progress("features"))
    return features, PixelClassifier().fit(features, scribbles)


def check_scribbles(
    scribbles: NDArray[Any], shape: tuple[int, ...], path: Path
) -> None:
    """Raise ValueError for scribbles that cannot train on an image of this shape."""
    import numpy as np

    from napari_hrdv2.files import size_text

    if scribbles.shape != shape[:2]:
        raise ValueError(
            f"labels: {path} is {size_text(scribbles.shape)} and the image "
            f"{size_text(shape[:2])} (width × height); draw them on this image"
        )
    classes = np.unique(scribbles[scribbles > 0])
    if len(classes) == 0:
        raise ValueError(f"labels: no pixel of {path} is labelled; draw two classes")
    if len(classes) == 1:
        seen = f"has scribbles of class {classes[0]} only"
        raise ValueError(f"labels: {path} {seen}; draw a second class")


def make_folder(path: Path) -> None:
    """Make the folder of --out."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out: {path} is a file; give a folder")
    path.mkdir(parents=True, exist_ok=True)


def check_outputs(outputs: Mapping[str, list[Path]], inputs: list[Path]) -> None:
    """Raise ValueError unless the files of each option have a place of their own."""
    taken = dict.fromkeys((path.resolve() for path in inputs), "")
    for option, path in ((o, path) for o, paths in outputs.items() for path in paths):
        other = taken.setdefault(path.resolve(), option)
        if not other:
            problem = "would replace an input; name another file"
        elif other != option:
            problem = f"is written by {other} already; name another file"
        elif not path.parent.is_dir():
            problem = f"cannot be written: there is no folder {path.parent}"
        elif path.is_dir():
            problem = "is a folder; name a file in it"
        else:
            continue
        raise ValueError(f"{option}: {path} {problem}")
