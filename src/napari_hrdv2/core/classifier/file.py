"""The file of a classifier: arrays and a JSON header in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from safetensors import safe_open
from safetensors.numpy import save

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.backbones.registry import name_for
from napari_hrdv2.core.features.normalisation import Normalisation
from napari_hrdv2.core.features.options import PartOptions
from napari_hrdv2.core.limits import parse_json

from .adaptation import TrainedOn
from .samples import MOST_PER_CLASS

FORMAT = "napari-hrdv2 classifier"
VERSION = 3  # 1 was that of napari-hrdv2 0.1.0; 2 knew no normalisation

TRAINED_ON, PAINTED = "trained_on_", "painted_"  # the arrays of each begin so
SOFTWARE = ("numpy", "torch")
# Of files up to a version: what they do not tell of the whole, and of a part.
UNTOLD: tuple[tuple[int, dict[str, Any], dict[str, Any]], ...] = (
    (
        1,
        {"self_training": False, "most_per_class": MOST_PER_CLASS},
        {"debias": "none", "partition": "own"},
    ),
    (2, {"normalisation": asdict(Normalisation())}, {"levels": None}),
    (VERSION, {}, {"channel": "", "planes": "z"}),
)


class Header(BaseModel):
    """Everything about a classifier but its arrays; see `PixelClassifier`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    version: int = VERSION
    C: float = Field(gt=0)
    balanced: bool
    tolerance: float
    self_training: bool
    most_per_class: int | None = Field(ge=1)
    by_place: bool = False  # no file tells of it that was written before it existed
    part_options: tuple[PartOptions, ...]
    normalisation: Normalisation
    class_names: dict[int, str]
    class_colors: dict[int, str]
    pixel_size: tuple[float | tuple[float, float], str] | None
    labels_hash: str
    software: dict[str, str] = Field(
        default_factory=lambda: {name: version(name) for name in SOFTWARE}
    )

    @field_validator("part_options", mode="before")
    @classmethod
    def _are_known(cls, parts: Any) -> Any:
        known = {field.name for field in fields(PartOptions)}
        for part in parts:
            if isinstance(part, dict) and set(part) != known:
                raise ValueError(f"{sorted(part)} are not {sorted(known)}")
        return parts

    @classmethod
    def of(cls, described: dict[str, Any]) -> Header:
        """Return the header of a file, also of a former version."""
        parts = described.pop("recipes" if described["version"] < 2 else "part_options")
        for last, whole, part in UNTOLD:
            if described["version"] <= last:
                described = {**whole, **described}
                parts = [{**part, **each} for each in parts]
        for part in parts:
            part["backbone"] = name_for(part["backbone"], part["weights_hash"])
        return cls.model_validate(
            {**described, "version": VERSION, "part_options": parts}
        )


class Arrays(NamedTuple):
    """What a classifier computes with."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    classes: NDArray[np.int64]

    def check(self) -> None:
        """Raise ValueError unless a classifier can be of these."""
        weight, bias, classes = self
        if not (weight.dtype == bias.dtype == np.float32 and classes.dtype == np.int64):
            raise ValueError("arrays of other types")
        if weight.ndim != 2 or not bias.shape == classes.shape == weight.shape[:1]:
            raise ValueError("arrays that do not fit each other")
        if len(classes) < 2 or classes[0] < 1 or (np.diff(classes) < 1).any():
            raise ValueError("label ids that are none")
        if not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise ValueError("weights that are no numbers")


class PaintedPoints(NamedTuple):
    """Some hundred painted pixels: what `unlikeness_to` compares with.

    The (d, C) `directions` and (d,) `offsets` lead from features to the (N, d)
    `points`; farther from these than the (1,) `threshold` is unlike them.
    """

    directions: NDArray[np.float32]
    offsets: NDArray[np.float32]
    points: NDArray[np.float32]
    threshold: NDArray[np.float32]

    def check(self, channels: int) -> None:
        """Raise ValueError unless features of so many channels can be compared."""
        length, count = len(self.offsets), len(self.points)
        wanted = (length, channels), (length,), (count, length), (1,)
        is_float = {each.dtype for each in self} == {np.dtype(np.float32)}
        if tuple(each.shape for each in self) != wanted or not (is_float and count):
            raise ValueError("painted points that do not fit each other")
        if not (all(np.isfinite(each).all() for each in self) and self.threshold > 0):
            raise ValueError("painted points that are no numbers")


def write_classifier(
    path: str | os.PathLike[str],
    header: Header,
    arrays: Arrays,
    trained_on: TrainedOn | None = None,
    painted: PaintedPoints | None = None,
) -> None:
    """Write a classifier; see `PixelClassifier.save`."""
    described = header.model_dump()
    described["part_options"] = [asdict(part) for part in header.part_options]
    described["normalisation"] = asdict(header.normalisation)
    named = arrays._asdict()
    if trained_on is not None:
        named |= {TRAINED_ON + name: x for name, x in vars(trained_on).items()}
    if painted is not None:
        named |= {PAINTED + name: x for name, x in painted._asdict().items()}
    tensors = {k: np.ascontiguousarray(v) for k, v in named.items()}
    text = json.dumps(described, sort_keys=True)
    about = {"format": FORMAT, "description": text, "digest": _digest(text, tensors)}
    content = save(tensors, about)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _digest(text: str, tensors: dict[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of all that a classifier is, by which damage is seen."""
    hashed = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name, array in sorted(tensors.items()):
        hashed.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()


def read_classifier(
    path: str | os.PathLike[str],
) -> tuple[Header, Arrays, TrainedOn | None, PaintedPoints | None]:
    """Read a classifier; see `PixelClassifier.load`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"classifier: there is no file {path}")
    ours = f"classifier: {path} is not a classifier of napari-hrdv2"
    try:
        with safe_open(str(path), "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        raise ValueError(
            f"{ours}: it is no safetensors file, or it is cut off"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{ours}: it is a safetensors file of something else")
    try:
        described = parse_json(metadata["description"])
        is_newer = described["version"] > VERSION
        if not is_newer:
            digest = _digest(metadata["description"], tensors)
            # The first files had none.
            if described["version"] > 1 and metadata.get("digest", digest) != digest:
                raise ValueError("its digest is another")
            arrays = Arrays(*(tensors[name] for name in Arrays._fields))
            arrays.check()
            channels = arrays.weight.shape[1]
            trained_on, painted = None, None
            names = [field.name for field in fields(TrainedOn)]
            if kept := _kept(names, tensors, TRAINED_ON):
                trained_on = TrainedOn(**kept)
                trained_on.check(channels)
            if kept := _kept(PaintedPoints._fields, tensors, PAINTED):
                painted = PaintedPoints(**kept)
                painted.check(channels)
            return Header.of(described), arrays, trained_on, painted
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{ours}: its content is damaged") from error
    raise ValueError(
        f"classifier: {path} has format {described['version']}; this version of "
        f"napari-hrdv2 reads up to {VERSION}, a newer one is needed"
    )


def _kept(
    names: Sequence[str], tensors: Mapping[str, NDArray[Any]], prefix: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays that begin so, by these names; none if a file has none."""
    if not any(name.startswith(prefix) for name in tensors):
        return {}
    return {name: tensors[prefix + name] for name in names}
