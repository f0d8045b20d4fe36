"""Pixel sizes: where microscopes keep them, two sides, and words that are no units."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from files.raw_files import ASCII, RATIONAL, SHORT, write_tiff
from napari_hrdv2.files import (
    LabelClasses,
    read_image,
    read_ome_zarr,
    write_labels,
    write_ome_zarr,
)
from napari_hrdv2.files.layers import read_layers
from napari_hrdv2.files.ome_zarr import read_image_and_labels
from napari_hrdv2.files.units import converted, is_length, unit_symbol

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)


def nanometres(path: Path) -> Any:
    """Return the size that is read, one number or height and width."""
    found = read_image(path)
    size = found.pixel_size
    if isinstance(size, tuple):
        return tuple(converted(side, found.unit, "nm") for side in size)
    return None if size is None else converted(size, found.unit, "nm")


def text_tag(code: int, text: str) -> tuple[Any, ...]:
    data = text.encode("latin-1")
    return code, 7, len(data), data, True


def with_tags(path: Path, *tags: tuple[Any, ...], **about: Any) -> Path:
    tifffile.imwrite(path, GREY, extratags=tags, **{"metadata": None, **about})
    return path


# --- Microscopes ----------------------------------------------------------------------
def zeiss(*lines: str, unnamed: float = 0) -> tuple[Any, ...]:
    first = ["0"] * 3 + [repr(unnamed)] + ["0"] * 40
    return 34118, "s", 0, "\r\n".join([*first, *lines, ""]).encode("latin-1"), True


def test_old_zeiss_software_tells_the_width_of_the_image(tmp_path: Path) -> None:
    """What it calls the size of a pixel is that of the screen's."""
    lines = ["AP_PIXEL_SIZE", "Pixel Size = 1.5 nm", "AP_WIDTH", "Width = 0.0244 µm"]
    path = with_tags(tmp_path / "z.tif", zeiss(*lines))
    assert nanometres(path) == pytest.approx(24.4 / 8)


def test_oldest_zeiss_software_has_a_number_for_1024_pixels(tmp_path: Path) -> None:
    path = with_tags(tmp_path / "z.tif", zeiss("DP_X", "x = 1", unnamed=2e-9))
    assert nanometres(path) == pytest.approx(2 * 1024 / 8)


def test_newer_zeiss_software_tells_the_size(tmp_path: Path) -> None:
    lines = ["AP_WIDTH", "Width = 9 µm", "AP_IMAGE_PIXEL_SIZE", "Size = 850.0 pm"]
    path = with_tags(tmp_path / "z.tif", zeiss(*lines))
    assert nanometres(path) == pytest.approx(0.85)


def test_fei_tells_both_sides_or_the_width_of_the_field(tmp_path: Path) -> None:
    text = "[Scan]\r\nPixelWidth=2e-9\r\nPixelHeight=3e-9\r\n"
    both = with_tags(tmp_path / "f.tif", (34682, "s", 0, text, True))
    with pytest.warns(UserWarning, match="not square"):
        assert nanometres(both) == pytest.approx((3, 2))
    field = with_tags(
        tmp_path / "g.tif", (34682, "s", 0, "[IRBeam]\r\nHFW=8e-6\r\n", True)
    )
    assert nanometres(field) == pytest.approx(1000)


def test_tescan_tells_it_in_a_tag_or_in_a_text_beside(tmp_path: Path) -> None:
    text = "[MAIN]\r\nPixelSizeX=3.25e-7\r\nPixelSizeY=3.25e-7\r\n"
    tag = with_tags(tmp_path / "t.tif", text_tag(50431, f"\x00\x12{text}"))
    assert nanometres(tag) == pytest.approx(325)
    for name in ("image-png.hdr", "other.hdr"):
        (tmp_path / name).write_text(text)
    Image.fromarray(GREY).save(tmp_path / "image.png")
    Image.fromarray(GREY).save(tmp_path / "other.png")
    assert nanometres(tmp_path / "image.png") == pytest.approx(325)
    assert nanometres(tmp_path / "other.png") == pytest.approx(325)


@pytest.mark.parametrize("suffix", ["tif", "bmp", "jpg"])
def test_jeol_tells_the_length_of_its_bar_in_a_text_beside(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"j.{suffix}"
    Image.fromarray(GREY).save(path)
    text = "$CM_FORMAT JEOL\n$$SM_MICRON_BAR 250\n$$SM_MICRON_MARKER 100nm\n"
    path.with_suffix(".txt").write_text(text)
    assert nanometres(path) == pytest.approx(0.4)


def test_another_text_beside_says_nothing(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "j.png")
    (tmp_path / "j.txt").write_bytes(bytes(range(256)))
    assert nanometres(tmp_path / "j.png") is None


def test_jeol_tem_tells_resolution_on_the_film_and_magnification(
    tmp_path: Path,
) -> None:
    text = (
        "<TemReporter><SelectorValue>50000</SelectorValue><ModeString>MAG</ModeString>"
    )
    path = with_tags(
        tmp_path / "s.tif",
        (271, "s", 0, "JEOL Ltd.", True),
        description=text,
        resolution=(400, 400),
        resolutionunit="CENTIMETER",
    )
    assert nanometres(path) == pytest.approx(0.01 / 400 / 50_000 * 1e9)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_gatan_tells_it_in_private_tags(tmp_path: Path, encoding: str) -> None:
    path = with_tags(
        tmp_path / "g.tif",
        (65003, "s", 0, "µm".encode(encoding), True),
        (65004, "s", 0, b"nm", True),
        (65009, "d", 1, 0.0125, True),
        (65010, "d", 1, 25.0, True),
    )
    with pytest.warns(UserWarning, match="not square"):
        assert nanometres(path) == pytest.approx((25, 12.5))


def test_olympus_sis_tells_it_in_a_structure(tmp_path: Path) -> None:
    head = struct.pack(
        "<4s6xhhhhh6x32sH", b"SIS0", 1, 1, 1, 1, 120, b"x", 1
    ) + struct.pack("<hhI", 1, 1, 0)
    general = struct.pack("<10xhdd8xd2x34s32s", -9, 12.5, 12.5, 1.0, b"", b"")
    first = with_tags(tmp_path / "s.tif", (33560, 7, len(head), head, True))
    # The structure tells where in the file the size lies: behind everything else.
    at = first.stat().st_size
    content = first.read_bytes().replace(head, head[:-4] + struct.pack("<I", at))
    first.write_bytes(content + general)
    assert nanometres(first) == pytest.approx(12.5)


def test_aperio_tells_micrometres(tmp_path: Path) -> None:
    text = "Aperio Image Library v11\r\n8x6 |AppMag = 40|MPP = 0.2525|Left = 1"
    path = with_tags(tmp_path / "a.tif", description=text)
    assert nanometres(path) == pytest.approx(252.5)


def test_fibsem_os_tells_it_in_json(tmp_path: Path) -> None:
    about = {"image": {"hfw": 1e-4}, "pixel_size": {"x": 9.77e-8, "y": 9.77e-8}}
    tifffile.imwrite(tmp_path / "f.tif", GREY, metadata=about)
    assert nanometres(tmp_path / "f.tif") == pytest.approx(97.7)


@pytest.mark.parametrize(
    "tag",
    [
        zeiss("AP_WIDTH", "Width = many µm"),
        zeiss("AP_WIDTH", "Width = 0.0 µm"),
        (34682, "s", 0, "[Scan]\r\nPixelWidth=inf\r\n", True),
        (34682, "s", 0, "[Scan]\r\nPixelWidth=-1\r\n", True),
        text_tag(50431, "PixelSizeX=1e-1e-1"),
        (65009, "d", 1, float("nan"), True),
    ],
)
def test_tags_that_make_no_sense_cost_no_image(
    tmp_path: Path, tag: tuple[Any, ...]
) -> None:
    path = with_tags(tmp_path / "t.tif", tag)
    assert np.array_equal(read_image(path).data, GREY)
    assert nanometres(path) is None


# --- Two sides ------------------------------------------------------------------------
def test_both_sides_come_from_imagej_and_from_ome(tmp_path: Path) -> None:
    about = {"unit": "um"}
    tifffile.imwrite(
        tmp_path / "i.tif", GREY, imagej=True, resolution=(5, 2), metadata=about
    )
    sizes = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(tmp_path / "o.ome.tif", GREY, metadata={"axes": "YX", **sizes})
    for name in ("i.tif", "o.ome.tif"):
        said = rf"{name} has pixels that are not square \(0.2 × 0.5 µm"
        with pytest.warns(UserWarning, match=said):
            assert read_image(tmp_path / name).pixel_size == pytest.approx((0.5, 0.2))


def test_both_sides_are_written_and_come_back(tmp_path: Path) -> None:
    write_labels(tmp_path / "l.tif", GREY, pixel_size=(0.5, 0.2), unit="µm")
    with pytest.warns(UserWarning, match="not square"):
        assert read_image(tmp_path / "l.tif").pixel_size == pytest.approx((0.5, 0.2))
    names = {1: "alloy"}
    write_labels(
        tmp_path / "n.tif", GREY, pixel_size=(3, 2), unit="nm", class_names=names
    )
    with pytest.warns(UserWarning, match="not square"):
        ((_, about, _),) = read_layers(str(tmp_path / "n.tif"))
    assert about["scale"] == pytest.approx((3, 2))


def test_both_sides_are_in_an_ome_zarr(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    write_ome_zarr(tmp_path / "o.zarr", GREY, GREY, LabelClasses(), (0.5, 0.2), "µm")
    _, _, size = read_image_and_labels(tmp_path / "o.zarr")
    assert size == ((0.5, 0.2), "µm")
    assert np.array_equal(read_ome_zarr(tmp_path / "o.zarr").labels, GREY)


def test_an_image_that_is_turned_turns_its_sides(tmp_path: Path) -> None:
    text = b"ImageJ=1.54f\nunit=nm\n\0"
    write_tiff(
        tmp_path / "t.tif",
        GREY.tobytes(),
        GREY.shape,
        more={
            270: (ASCII, list(text)),
            274: (SHORT, [6]),
            282: (RATIONAL, [2, 1]),
            283: (RATIONAL, [1, 1]),
        },
    )
    with pytest.warns(UserWarning, match="(turned|not square)"):
        found = read_image(tmp_path / "t.tif")
    assert found.data.shape == (8, 6)
    assert found.pixel_size == pytest.approx((0.5, 1))


# --- Words ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "word",
    ["null", "NULL", "Unknown", "px", "Pixels", "none", "NaN", "n/a", "a.u.", "?"],
)
def test_words_that_are_no_units_give_no_size(tmp_path: Path, word: str) -> None:
    tifffile.imwrite(
        tmp_path / "i.tif",
        GREY,
        imagej=True,
        resolution=(4, 4),
        metadata={"unit": word},
    )
    found = read_image(tmp_path / "i.tif")
    assert (found.pixel_size, found.unit) == (None, "pixel")


@pytest.mark.parametrize("word", ["Micrometers", "MICRONS", "microns", "Micrometre"])
def test_case_and_plural_of_a_unit_are_no_matter(word: str) -> None:
    assert unit_symbol(word) == "µm"
    assert is_length(word)


def test_only_lengths_are_told_to_napari(tmp_path: Path) -> None:
    """It refuses a file whose unit it does not know."""
    write_labels(
        tmp_path / "l.tif", GREY, pixel_size=2, unit="wobble", class_names={1: "a"}
    )
    ((_, about, _),) = read_layers(str(tmp_path / "l.tif"))
    assert about["units"] == ("pixel", "pixel")
