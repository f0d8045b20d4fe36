"""Damaged files: whatever is changed in one, a sentence comes or the right result.

A few hundred seeded changes over all readers; `NAPARI_HRDV2_MUTATIONS=3000` makes more.
"""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from files.foreign import labkit
from files.raw_files import SHORT, lzw, write_png, write_tiff
from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.backbones.checkpoint import read_checkpoint, read_json
from napari_hrdv2.core.errors import explained
from napari_hrdv2.files import (
    LabelClasses,
    import_labels,
    open_image,
    read_image,
    read_labels,
    write_labels,
    write_ome_zarr,
)
from napari_hrdv2.files.layers import get_reader, read_layers
from napari_hrdv2.session.project.store import (
    load_project,
    project_summary,
    save_project,
)
from saved_projects import entry, project
from synthetic import striped_features, strokes

COUNT = int(os.environ.get("NAPARI_HRDV2_MUTATIONS", "400"))
SECONDS, BYTES = 10, 10**9

RANDOM = np.random.default_rng(11)
SHAPE = (24, 40)
GREY = RANDOM.integers(0, 256, SHAPE, dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
IDS = np.repeat(RANDOM.integers(0, 4, (SHAPE[0], 5)), 8, axis=1).astype(np.uint8)


@dataclass(frozen=True)
class Format:
    """How to write a small file, to read it, and whether it has checksums."""

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    is_checked: bool = False


# --- What is read, as plain values ----------------------------------------------------
def image(path: Path) -> Any:
    found = read_image(path)
    return found.data, found.pixel_size, found.unit


def windows(path: Path) -> Any:
    found = open_image(path)
    parts = [np.asarray(found.data[:, a : a + 16]) for a in range(0, 40, 16)]
    return np.concatenate(parts, axis=1), found.pixel_size, found.unit


def labels(path: Path) -> Any:
    found = import_labels(path, SHAPE)
    return found.labels, found.classes.names, found.classes.colors


def layers(path: Path) -> Any:
    reader = get_reader(str(path))
    return [] if reader is None else [data for data, _, _ in read_layers(str(path))]


def classifier(path: Path) -> Any:
    found = PixelClassifier.load(path)
    return found.weight, found.bias, found.classes, found.class_names, found.pixel_size


def saved_project(path: Path) -> Any:
    project_summary(path)
    found = load_project(path)
    images = [(one.scribbles, one.image, one.name, one.key) for one in found.images]
    return images, {i: info.name for i, info in found.classes.items()}, found.options


def tensors(path: Path) -> Any:
    return {name: x.numpy() for name, x in sorted(read_checkpoint(path).items())}


# --- Small files ----------------------------------------------------------------------
def tiff(**about: Any) -> Callable[[Path], Any]:
    return lambda path: tifffile.imwrite(path, GREY, **about)


def pillow(pixels: Any, **about: Any) -> Callable[[Path], Any]:
    return lambda path: Image.fromarray(pixels).save(path, **about)


def deep_lzw(path: Path) -> None:
    deep = RGB.astype("<u2") * 200
    data = [lzw(deep[start : start + 8].tobytes()) for start in (0, 8, 16)]
    about = {"bits": 16, "samples": 3, "photometric": 2, "compression": 5, "rows": 8}
    write_tiff(path, data, SHAPE, **about, more={274: (SHORT, [3])})


def palette(path: Path) -> None:
    table = RANDOM.integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, GREY, photometric="palette", colormap=table)


def named_labels(path: Path) -> None:
    names, colors = {1: "alloy", 2: "pore"}, {1: "#112233", 2: "#445566"}
    write_labels(path, IDS, pixel_size=0.5, class_names=names, class_colors=colors)


def ilastik(path: Path) -> None:
    pytest.importorskip("h5py")
    from files.foreign import write_ilastik

    write_ilastik(path, {"a.tif": (IDS, "yx")})


def rois(path: Path) -> None:
    pytest.importorskip("roifile")
    from files.foreign import region, write_rois

    square = [(2, 3), (2, 9), (9, 9), (9, 3)]
    write_rois(path, region("POLYGON", square), region("FREELINE", square))


def ome_zarr(version: str) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        pytest.importorskip("zarr")
        classes = LabelClasses({1: "alloy"}, {1: "#112233"})
        write_ome_zarr(path, RGB, IDS, classes, 0.5, "nm", version=version)

    return write


def trained(path: Path) -> None:
    made = PixelClassifier().fit(striped_features(), strokes(3, 70))
    made.class_names = {3: "matrix"}
    made.save(path)


def small_project(path: Path) -> None:
    made = PixelClassifier().fit(striped_features(), strokes(3, 70))
    one = entry("a", exclusion=np.eye(7, 11, dtype=bool))
    save_project(project(one, entry("b", image=GREY), classifier=made), path)


def checkpoint(path: Path) -> None:
    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)


def config(path: Path) -> None:
    path.write_text(json.dumps({"hidden_size": 12, "layers": [1, 2, {"a": None}]}))


FORMATS = (
    Format("plain.tif", tiff(), image),
    Format("zlib.tif", tiff(compression="zlib", predictor=2, rowsperstrip=5), image),
    Format("tiles.tif", tiff(tile=(16, 16), metadata={"axes": "YX"}), image),
    Format("imagej.tif", tiff(imagej=True, resolution=(2, 2)), image),
    Format("ome.ome.tif", tiff(ome=True, metadata={"PhysicalSizeX": 0.5}), image),
    Format("jpeg.tif", pillow(RGB, compression="jpeg"), image),
    Format("lzw16.tif", deep_lzw, image),
    Format("cmyk.tif", lambda p: Image.fromarray(RGB).convert("CMYK").save(p), image),
    Format("palette.tif", palette, image),
    Format("g4.tif", pillow(GREY > 99, compression="group4"), image),
    Format("grey.png", pillow(GREY), image, is_checked=True),
    Format("deep.png", lambda p: write_png(p, RGB.astype("u2") * 200), image, True),
    Format("ids.png", pillow(IDS), labels, is_checked=True),
    Format("color.jpg", pillow(RGB), image),
    Format("color.bmp", pillow(RGB), image),
    Format("ids.bmp", pillow(IDS), read_labels),
    Format("named.tif", named_labels, labels),
    Format("layers.tif", named_labels, layers),
    Format(
        "labkit.labeling",
        lambda p: p.write_text(labkit(IDS, ("alloy", "pore", "glass"))),
        labels,
    ),
    Format("ilastik.ilp", ilastik, labels),
    Format("regions.zip", rois, labels),
    Format("lazy.tif", tiff(compression="zlib", predictor=2, rowsperstrip=5), windows),
    Format("lazy.tiles.tif", tiff(tile=(16, 16), compression="lzw"), windows),
    Format("lazy.plain.tif", tiff(), windows),
    Format("lazy4.zarr", ome_zarr("0.4"), windows),
    Format("lazy5.zarr", ome_zarr("0.5"), windows),
    Format("ome4.zarr", ome_zarr("0.4"), labels),
    Format("ome5.zarr", ome_zarr("0.5"), layers),
    Format("classifier.safetensors", trained, classifier, is_checked=True),
    Format("project.hrdv2", small_project, saved_project, is_checked=True),
    Format("weights.safetensors", checkpoint, tensors),
    Format("weights.pt", checkpoint, tensors),
    Format("config.json", config, read_json),
)


# --- Changes --------------------------------------------------------------------------
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
WORDS = (
    *(b"1e999", b"-1", b"9" * 30, b"0.5", b"null", b'"x"', b"[]", b"{}", b"true"),
    *(b"NaN", b'"\\ud800"', b"[" * 3000, b"9" * 5000, b"18446744073709551616"),
)


def changed(content: bytes, random: np.random.Generator) -> bytes:
    """Return it with one thing altered: bits, numbers, words, length, order."""
    if not content:
        return random.bytes(5)
    made = bytearray(content)
    at = int(random.integers(len(made)))
    if random.random() < 0.5:  # what stands at the start steers the rest
        at = int(random.integers(min(len(made), 600)))
    match random.integers(8):
        case 0:
            made[at] ^= 1 << int(random.integers(8))
        case 1:
            size = int(random.integers(1, 9))
            made[at : at + size] = random.bytes(size)
        case 2:
            size = int(random.choice((1, 2, 4)))
            value = int(random.choice(EXTREMES)) % 256**size
            order = str(random.choice(("little", "big")))
            made[at : at + size] = value.to_bytes(size, order)
        case 3:
            del made[at:]
        case 4:
            del made[at : at + int(random.integers(1, 60))]
        case 5:
            made[at:at] = made[: int(random.integers(1, 60))]
        case 6:
            other = int(random.integers(len(made)))
            made[at : at + 4], made[other : other + 4] = (
                made[other : other + 4],
                made[at : at + 4],
            )
        case _:
            tokens = [*re.finditer(rb'[-0-9.]+|"[^"]*"|null|true', made)]
            if tokens:
                found = tokens[int(random.integers(len(tokens)))]
                made[found.start() : found.end()] = WORDS[
                    int(random.integers(len(WORDS)))
                ]
    return bytes(made)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        same = isinstance(other, np.ndarray) and one.dtype == other.dtype
        return same and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(equal(a, b) for a, b in pairs)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    return bool(one == other)


def most_memory() -> int:
    """Return the most bytes that this process has had, 0 where nobody tells."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def outcome(format: Format, path: Path) -> Any:
    """Return what is read, or None for a sentence that names the file."""
    start, before = time.process_time(), most_memory()
    found, said, told = None, path.name, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = format.read(path)
    except (ValueError, OSError) as error:
        said, told = str(error), explained(error)
    assert path.name in said
    assert "\n" not in told
    assert len(told) < 1000
    assert time.process_time() - start < SECONDS  # the machine may be busy
    assert most_memory() - before < BYTES
    return found


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
@pytest.mark.filterwarnings("ignore")
def test_a_change_gives_a_sentence_or_the_right_result(
    format: Format, tmp_path: Path
) -> None:
    path = tmp_path / format.name
    format.write(path)
    whole = outcome(format, path)
    assert whole is not None
    files = sorted(one for one in path.rglob("*") if one.is_file()) or [path]
    for number in range(-(-COUNT // len(FORMATS))):
        random = np.random.default_rng([number, *format.name.encode()])
        target = files[int(random.integers(len(files)))]
        content = target.read_bytes()
        target.write_bytes(made := changed(content, random))
        try:
            found = outcome(format, path)
            if format.is_checked and found is not None:
                assert equal(found, whole)
        except BaseException as error:
            error.add_note(f"{target.name}, change {number}: {made[:60]!r}…")
            raise
        target.write_bytes(content)


def test_equal_sees_what_differs() -> None:
    assert equal([np.eye(2), {"a": 1}], [np.eye(2), {"a": 1}])
    assert not equal([np.eye(2), {"a": 1}], [np.eye(2) * 2, {"a": 1}])
    assert not equal([np.eye(2), {"a": 1}], [np.eye(2), {"a": 2}])
