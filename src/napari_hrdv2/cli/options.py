"""Options that several commands take, each declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from napari_hrdv2.core.features.options import FeatureOptions
    from napari_hrdv2.core.postprocess.refinement import Refinement

_DEVICE = "auto, cpu, cuda, cuda:1 or mps."
_WEIGHTS = "A local file or folder; or random, for tests."
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line.")
]
Device = Annotated[str, typer.Option(help=_DEVICE, metavar="DEVICE")]
Weights = Annotated[str | None, typer.Option(help=_WEIGHTS, metavar="PATH")]


def _option(
    default: Any, text: str, metavar: str | None = None, short: str = ""
) -> Any:
    about = {"help": text, "metavar": metavar, "short": short}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class FeatureChoices:
    """How features are made."""

    backbone: str = _option(
        "embedded",
        "A name of `backbones` or a variant, facets after @, a Hub id, or a+b.",
        "B",
        "-b",
    )
    transforms: str = _option(
        "auto", "As shift:1,2 or lattice:4; auto is what suits the backbone.", "S", "-t"
    )
    stride: int | None = _option(
        None, "Pixels between patches; the patch size by default."
    )
    interpolation: str = _option(
        "bilinear",
        "How tokens become pixels: nearest, bilinear, bicubic, interleaved (for "
        "lattices), bilateral (follows the image's edges: better where classes differ "
        "in grey level, worse where they do not) or jbu (learned, from a file); +1 or "
        "+2 sharpens, as in bilinear+2.",
        "I",
        "-i",
    )
    debias: str = _option(
        "none",
        "Remove what tells the position from tokens: none, mean or project; for even "
        "surfaces.",
        "D",
    )
    device: str = _option("auto", _DEVICE, "DEVICE")
    weights: str | None = _option(None, _WEIGHTS, "PATH")

    def options(self) -> FeatureOptions:
        """Return them as the session takes them."""
        from napari_hrdv2.core.features.options import FeatureOptions

        return FeatureOptions(**asdict(self))


@dataclass(frozen=True)
class RefinementChoices:
    """What is done with a segmentation after the classifier."""

    smoothing: str = _option(
        "none", "none, guided or crf: follow the image's edges, keep thin phases.", "M"
    )
    radius: int = _option(8, "Reach of the smoothing, in pixels.", "PIXELS")
    strength: float = _option(0.5, "Of smoothing, in 0..1; up to 0.5 keeps thin lines.")
    min_object: int = _option(0, "Objects of fewer pixels go to the class around them.")
    fill_holes: int = _option(0, "Holes of fewer pixels go to the class around them.")

    def refinement(self) -> Refinement:
        """Return them as the core takes them, checked."""
        from napari_hrdv2.core.postprocess.refinement import Refinement

        chosen = Refinement(**asdict(self))
        chosen.check()
        return chosen


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose dataclass arguments are options, one for each field."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {}
    parameters = []
    for name, parameter in signature.parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            hints = get_type_hints(parameter.annotation)
            parameters += [_parameter(f, hints[f.name]) for f in fields(groups[name])]
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        command(**values)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameter(option: Field[Any], kind: Any) -> Parameter:
    about = dict(option.metadata)
    names = [f"--{option.name.replace('_', '-')}", about.pop("short")]
    annotation = Annotated[kind, typer.Option(*filter(None, names), **about)]
    return Parameter(
        option.name,
        Parameter.KEYWORD_ONLY,
        default=option.default,
        annotation=annotation,
    )
