"""What commands share: options, reports, training, and checks of arguments."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from napari_hrdv2.core.checks import check_are_classes
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.files import size_text

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.series.training import TrainedSeries
    from napari_hrdv2.session import TaskContext


_DEVICE = "auto, cpu, cuda, cuda:1 or mps."
_WEIGHTS = "A local file or folder; or random, for tests."
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")]
Device = Annotated[str, typer.Option(help=_DEVICE, metavar="DEVICE")]
Blocks = Annotated[
    bool,
    typer.Option(
        "--blocks",
        help="Go block by block and write OME-Zarr, as is done for images whose "
        "features do not fit into memory; it goes on where it was ended.",
    ),
]
Weights = Annotated[str | None, typer.Option(help=_WEIGHTS, metavar="PATH")]


# Fields of `FeatureOptions` and `Refinement` that are options: what they are for, what
# stands for their value, and a short name.
_OPTIONS: dict[str, tuple[str, str | None, str]] = {
    "backbone": (
        "A name of `backbones` or a variant, facets after @, a Hub id, or a+b.",
        "B",
        "-b",
    ),
    "transforms": (
        "As shift:1,2 or lattice:4; auto suits the backbone, published is HR-Dv2's.",
        "S",
        "-t",
    ),
    "stride": ("Pixels between patches; the patch size by default.", None, ""),
    "interpolation": (
        "How tokens become pixels: auto (bilateral for a Vision Transformer alone, "
        "else bilinear), nearest, bilinear, bicubic, interleaved (for "
        "lattices), bilateral (follows the image's edges: better where classes differ "
        "in grey level, worse where they do not) or jbu (learned, from a file); +1 or "
        "+2 sharpens, as in bilinear+2.",
        "I",
        "-i",
    ),
    "debias": (
        "Remove what tells the position from tokens: none, mean or project; for even "
        "surfaces.",
        "D",
        "",
    ),
    "normalisation": (
        "Whose grey levels, in a series: image (its own), shared (the labelled "
        "images'), matched (found by what the classes have there) or auto.",
        "N",
        "",
    ),
    "device": (_DEVICE, "DEVICE", ""),
    "weights": (_WEIGHTS, "PATH", ""),
    "smoothing": (
        "none, guided or crf: follow the image's edges, keep thin phases.",
        "M",
        "",
    ),
    "radius": ("Reach of the smoothing, in pixels.", "PIXELS", ""),
    "strength": ("Of smoothing, in 0..1; up to 0.5 keeps thin lines.", None, ""),
    "min_object": ("Objects of fewer pixels go to the class around them.", None, ""),
    "fill_holes": ("Holes of fewer pixels go to the class around them.", None, ""),
}


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose dataclass arguments are options, one for each field.

    A field whose option the command declares itself keeps its default.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {}
    names: dict[str, list[str]] = {}
    parameters = []
    for name, parameter in signature.parameters.items():
        group = parameter.annotation
        if is_dataclass(group):
            known = _OPTIONS.keys() - signature.parameters.keys()
            options = [_parameter(one) for one in fields(group) if one.name in known]
            groups[name], names[name] = group, [one.name for one in options]
            parameters += options
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field: values.pop(field) for field in names[name]})
        command(**values)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameter(option: Field[Any]) -> Parameter:
    text, metavar, short = _OPTIONS[option.name]
    names = filter(None, (f"--{option.name.replace('_', '-')}", short))
    kind = {"stride": int | None, "weights": str | None}.get(option.name)
    about = typer.Option(*names, help=text, metavar=metavar)
    return Parameter(
        option.name,
        Parameter.KEYWORD_ONLY,
        default=option.default,
        annotation=Annotated[kind or type(option.default), about],
    )


@dataclass(frozen=True)
class Report:
    """What a command prints: text for people, or one JSON object for programs.

    With `as_json` all text goes to standard error, so that the JSON object is the last
    line, and the only one, of standard output.
    """

    as_json: bool

    def say(self, text: str = "") -> None:
        """Print a line for people."""
        typer.echo(readable(text), err=self.as_json)

    def note(self, text: str) -> None:
        """Print a line for whoever waits at a terminal."""
        if sys.stderr.isatty():
            typer.echo(readable(text), err=True)

    def complain(self, text: str) -> None:
        """Print a line about something that went wrong."""
        typer.echo(f"napari-hrdv2: {readable(text)}", err=True)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Print the result as JSON if that was asked for."""
        if self.as_json:
            typer.echo(json.dumps(result, allow_nan=False))

    def progress(self, task: str) -> Callable[[int, int], None]:
        """Return ``progress(done, total)``, which draws a bar if in a terminal."""
        from napari_hrdv2.session import TimeLeft

        last, left = "", TimeLeft()

        def draw(done: int, total: int) -> None:
            nonlocal last
            part = min(done / total, 1.0) if total else 0.0
            line = f"\r{task}  {'━' * round(30 * part):╌<30} {part:4.0%}"
            line += f"  {left.text(task, done, total)}\033[K"
            if part >= 1:
                line = "\r\033[K"  # leave no trace
            if line != last:
                sys.stderr.write(line)
                sys.stderr.flush()
                last = line

        return draw if sys.stderr.isatty() else lambda done, total: None

    def context(self) -> TaskContext:
        """Return the context of a task whose stages are drawn as bars."""
        from napari_hrdv2.session import TaskContext

        draw: dict[str, Callable[[int, int], None]] = {}

        def progress(stage: str, done: int, total: int) -> None:
            draw.setdefault(stage, self.progress(stage))(done, total)

        return TaskContext(progress)


@contextmanager
def goes_on(path: Path) -> Iterator[None]:
    """Say, when what is written to a path is ended, that it can be gone on with."""
    from napari_hrdv2.files.label_store import unfinished

    try:
        yield
    except (KeyboardInterrupt, Cancelled):
        kept = unfinished(path)
        if kept.exists():
            typer.echo(
                f"napari-hrdv2: {kept} keeps the blocks that are done; the same "
                "command goes on with them",
                err=True,
            )
        raise


def readable(text: str) -> str:
    """Return a text as a terminal takes it: names of files need not be text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def by_id(values: Mapping[int, Any]) -> dict[str, Any]:
    """Return a mapping as JSON has it: its ids are strings."""
    return {str(i): value for i, value in values.items()}


def load(options: FeatureOptions, report: Report) -> Backbone | JoinedBackbone:
    """Load the backbone, downloading it with a progress bar if need be."""
    from napari_hrdv2.core.backbones import sources_of

    sources = sources_of(options.backbone, options.weights)
    say_licences([name for name in sources if sources[name] is None], report.note)
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
    images: Sequence[NDArray[Any]],
    scribbles: Sequence[NDArray[Any]],
    backbone: Backbone | JoinedBackbone,
    options: FeatureOptions,
    report: Report,
    *,
    exclusion: Sequence[NDArray[Any] | None] | None = None,
    blocks: bool = False,
    pixel_ratios: Sequence[tuple[float, float] | None] | None = None,
) -> TrainedSeries:
    """Return the features of images and the classifier of their scribbles."""
    from napari_hrdv2.core.series.training import train_series

    return train_series(
        images,
        scribbles,
        backbone,
        normalisation=options.normalisation,
        exclusion=exclusion,
        progress=report.progress("features"),
        blocks=blocks,
        pixel_ratios=pixel_ratios,
        **options.choices,
    )


def normalisation_of(classifier: PixelClassifier) -> dict[str, str]:
    """Return whose grey levels the images of a series are given, and why, as JSON."""
    chosen = classifier.normalisation
    return {"kind": chosen.kind, "reason": chosen.reason}


def say_normalisation(classifier: PixelClassifier, report: Report) -> None:
    """Say whose grey levels other images are brought to, and why."""
    chosen = classifier.normalisation
    if chosen.kind != "image":
        report.say(f"normalisation: {chosen.kind} ({chosen.reason})")


def check_scribbles(
    scribbles: NDArray[Any], shape: tuple[int, ...], path: Path, *, alone: bool = True
) -> None:
    """Raise ValueError for scribbles that cannot train on an image of this shape.

    Where others train too, they need not have two classes, as they must if `alone`.
    """
    if scribbles.shape != shape[:2]:
        raise ValueError(
            f"labels: {path} is {size_text(scribbles.shape)} and the image "
            f"{size_text(shape[:2])} (width × height); draw them on this image"
        )
    classes = np.unique(scribbles[scribbles > 0])
    check_are_classes(f"labels: {path}", classes.tolist())
    if len(classes) == 0:
        raise ValueError(f"labels: no pixel of {path} is labelled; draw two classes")
    if alone and len(classes) == 1:
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
        elif path.is_dir() and path.suffix != ".zarr":
            problem = "is a folder; name a file in it"
        else:
            continue
        raise ValueError(f"{option}: {path} {problem}")
