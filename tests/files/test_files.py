from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_hrdv2.files import (
    image_files,
    read_image,
    read_label_classes,
    read_labels,
    write_color_png,
    write_image,
    write_labels,
)

GREY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)
COLOR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["tif", "png", "bmp"])
@pytest.mark.parametrize("data", [GREY, COLOR], ids=["grey", "color"])
def test_lossless_files_come_back_as_they_were(
    tmp_path: Path, suffix: str, data: np.ndarray
) -> None:
    path = tmp_path / f"image.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, data)
    else:
        Image.fromarray(data).save(path)
    found = read_image(path)
    assert found.data.dtype == np.uint8
    assert np.array_equal(found.data, data)
    assert (found.pixel_size, found.unit) == (None, "pixel")


def test_jpeg_comes_back_nearly_as_it_was(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "image.jpg", quality=95)
    found = read_image(tmp_path / "image.jpg").data.astype(int)
    assert np.abs(found - smooth).max() < 12


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int16"])
def test_tiff_keeps_its_number_format(tmp_path: Path, dtype: str) -> None:
    data = (GREY.astype(dtype) * 100).astype(dtype)
    tifffile.imwrite(tmp_path / "image.tif", data)
    found = read_image(tmp_path / "image.tif").data
    assert found.dtype == dtype
    assert np.array_equal(found, data)


def test_sixteen_bit_png_keeps_its_grey_levels(tmp_path: Path) -> None:
    data = GREY.astype(np.uint16) * 1000
    Image.fromarray(data).save(tmp_path / "image.png")
    found = read_image(tmp_path / "image.png").data
    assert found.dtype == np.uint16
    assert np.array_equal(found, data)


def test_grey_with_alpha_gives_grey_and_colours_keep_their_alpha(
    tmp_path: Path,
) -> None:
    alpha = np.full_like(GREY, 128)
    Image.fromarray(np.stack([GREY, alpha], -1), "LA").save(tmp_path / "la.png")
    Image.fromarray(np.dstack([COLOR, alpha])).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "la.png").data, GREY)
    assert read_image(tmp_path / "rgba.png").data.shape == (6, 8, 4)


def test_a_palette_stands_for_its_colours_in_images_and_for_ids_in_labels(
    tmp_path: Path,
) -> None:
    entry = Image.fromarray(GREY % 2).convert("P")
    entry.putpalette([255, 0, 0, 0, 0, 255])
    entry.save(tmp_path / "p.png")
    colors = read_image(tmp_path / "p.png").data
    assert colors[0, 0].tolist() == [255, 0, 0]
    assert colors[0, 1].tolist() == [0, 0, 255]
    assert np.array_equal(read_labels(tmp_path / "p.png"), GREY % 2)


def test_a_grey_palette_gives_a_grey_image(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
    entry = Image.fromarray(GREY).convert("P")
    entry.putpalette(ramp.tobytes())
    entry.save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png").data, 255 - GREY)


def test_a_tiff_palette_stands_for_its_colours(tmp_path: Path) -> None:
    colormap = np.zeros((3, 256), np.uint16)
    colormap[0, 1] = 0xFFFF
    tifffile.imwrite(
        tmp_path / "p.tif", GREY % 2, photometric="palette", colormap=colormap
    )
    found = read_image(tmp_path / "p.tif").data
    assert found[0, :2].tolist() == [[0, 0, 0], [255, 0, 0]]
    assert np.array_equal(read_labels(tmp_path / "p.tif"), GREY % 2)


def test_a_tiff_where_white_is_zero_is_turned(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "w.tif", GREY, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "w.tif").data, 255 - GREY)


def test_colour_planes_one_after_the_other_are_interleaved(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(COLOR, -1, 0))
    tifffile.imwrite(
        tmp_path / "s.tif", planes, photometric="rgb", planarconfig="separate"
    )
    assert np.array_equal(read_image(tmp_path / "s.tif").data, COLOR)


def test_lzw_tiff_is_read(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "z.tif", compression="tiff_lzw")
    assert np.array_equal(read_image(tmp_path / "z.tif").data, GREY)


def test_pixel_size_comes_from_imagej(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "i.tif",
        GREY,
        imagej=True,
        resolution=(1 / 0.25, 1 / 0.25),
        metadata={"unit": "um"},
    )
    found = read_image(tmp_path / "i.tif")
    assert (found.pixel_size, found.unit) == (0.25, "µm")


def test_pixel_size_comes_from_ome(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 4.5, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(tmp_path / "o.ome.tif", GREY, metadata=metadata)
    found = read_image(tmp_path / "o.ome.tif")
    assert (found.pixel_size, found.unit) == (4.5, "nm")


def test_pixel_size_comes_from_an_electron_microscope(tmp_path: Path) -> None:
    header = "[Scan]\r\nPixelWidth=2.5e-9\r\nPixelHeight=2.5e-9\r\n"
    tag = (34682, "s", 0, header, True)
    tifffile.imwrite(tmp_path / "f.tif", GREY, extratags=[tag], metadata=None)
    found = read_image(tmp_path / "f.tif")
    assert found.pixel_size == pytest.approx(2.5)
    assert found.unit == "nm"


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [(20_000, "centimeter", 0.5), (72, "inch", None), (300, "inch", None)],
)
def test_resolution_tags_give_a_pixel_size_unless_they_are_a_printer_s(
    tmp_path: Path, resolution: float, unit: str, expected: float | None
) -> None:
    tifffile.imwrite(
        tmp_path / "r.tif",
        GREY,
        resolution=(resolution, resolution),
        resolutionunit=unit,
        metadata=None,
    )
    assert read_image(tmp_path / "r.tif").pixel_size == expected


def test_stacks_are_refused_in_a_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.stack([GREY] * 5))
    with pytest.raises(
        ValueError, match=r"s\.tif is a stack of 5 images \(shape 5 × 6 × 8\)"
    ):
        read_image(tmp_path / "s.tif")
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.png holds 2 images"):
        read_image(tmp_path / "a.png")


def test_a_thumbnail_beside_the_image_is_no_stack(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "t.tif") as tif:
        tif.write(GREY, metadata=None)
        tif.write(GREY[::2, ::2], metadata=None)
    assert np.array_equal(read_image(tmp_path / "t.tif").data, GREY)


def test_many_bands_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "b.tif",
        np.zeros((6, 8, 7), np.uint8),
        photometric="minisblack",
        planarconfig="contig",
    )
    with pytest.raises(ValueError, match="7 bands"):
        read_image(tmp_path / "b.tif")


def test_what_is_no_image_is_named_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png: there is no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError, match="is a folder; give an image file"):
        read_image(tmp_path)
    (tmp_path / "empty.tif").touch()
    with pytest.raises(ValueError, match="is empty; give a TIFF, PNG, JPEG or BMP"):
        read_image(tmp_path / "empty.tif")
    (tmp_path / "text.png").write_text("hello, world")
    with pytest.raises(ValueError, match="not an image of a kind read here"):
        read_image(tmp_path / "text.png")


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg", "bmp"])
def test_a_file_cut_short_is_refused_as_damaged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    if suffix == "tif":
        tifffile.imwrite(path, noise, compression="zlib")
    else:
        Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} is damaged or cut short"):
        read_image(path)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(3, "uint8"), (300, "uint16"), (70_000, "uint32")]
)
def test_labels_come_back_with_pixel_size_names_and_colours(
    tmp_path: Path, largest: int, dtype: str
) -> None:
    path = tmp_path / "labels.tif"
    labels = np.zeros((6, 8), np.int64)
    labels[2:4, 3:] = largest
    names, colors = {largest: "γ′ phase"}, {largest: "#ff8800"}
    write_labels(
        path,
        labels,
        pixel_size=0.5,
        unit="µm",
        class_names=names,
        class_colors=colors,
    )
    assert read_labels(path).dtype == dtype
    assert np.array_equal(read_labels(path), labels)
    found = read_image(path)
    assert found.pixel_size == pytest.approx(0.5)
    assert found.unit == "µm"
    classes = read_label_classes(path)
    assert (classes.names, classes.colors) == (names, colors)


def test_labels_are_compressed_and_marked_for_imagej(tmp_path: Path) -> None:
    write_labels(tmp_path / "l.tif", np.ones((500, 500), np.uint8))
    assert (tmp_path / "l.tif").stat().st_size < 5000
    with tifffile.TiffFile(tmp_path / "l.tif") as tif:
        assert tif.is_imagej


def test_names_are_empty_where_a_file_has_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "l.tif", GREY)
    assert read_label_classes(tmp_path / "l.tif").names == {}
    assert read_label_classes(tmp_path / "none.tif").names == {}


def test_labels_may_be_whole_floats_but_no_fractions_signs_or_colours(
    tmp_path: Path,
) -> None:
    path = tmp_path / "l.tif"
    tifffile.imwrite(path, GREY.astype(np.float32))
    assert np.array_equal(read_labels(path), GREY)
    tifffile.imwrite(path, GREY + 0.5)
    with pytest.raises(ValueError, match=r"l\.tif holds fractions"):
        read_labels(path)
    tifffile.imwrite(path, GREY.astype(np.int16) - 1)
    with pytest.raises(ValueError, match="-1 is not an id"):
        read_labels(path)
    tifffile.imwrite(path, COLOR)
    with pytest.raises(ValueError, match=r"holds colours \(shape \(6, 8, 3\)\)"):
        read_labels(path)


def test_jpeg_labels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "l.jpg")
    with pytest.raises(ValueError, match="JPEG, which alters label ids"):
        read_labels(tmp_path / "l.jpg")


@pytest.mark.parametrize("label", [3, 300])
def test_a_colour_png_shows_each_label_in_its_colour(
    tmp_path: Path, label: int
) -> None:
    labels = np.array([[0, 1], [label, 1]])
    colors = {1: "#ff0000", label: "#00ff10"}
    write_color_png(tmp_path / "c.png", labels, colors)
    seen = np.asarray(Image.open(tmp_path / "c.png").convert("RGB"))
    assert seen.tolist() == [
        [[0, 0, 0], [255, 0, 0]],
        [[0, 255, 16], [255, 0, 0]],
    ]


def test_every_label_needs_a_colour_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "c.png"
    path.write_text("old")
    with pytest.raises(ValueError, match="colors: label 48 has none"):
        write_color_png(path, GREY + 1, dict.fromkeys(range(48), "#000000"))
    assert path.read_text() == "old"


def test_folders_stand_for_the_images_in_them(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.tif", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    found = image_files([tmp_path, "elsewhere.jpg"])
    assert [p.name for p in found] == ["a.tif", "b.PNG", "elsewhere.jpg"]


@pytest.mark.parametrize("unit", ["Ω", "pixel\n", "μm²", "ångström", "år"])
def test_any_unit_is_written_and_comes_back(tmp_path: Path, unit: str) -> None:
    write_labels(tmp_path / "l.tif", GREY, pixel_size=0.5, unit=f"k{unit}")
    found = read_image(tmp_path / "l.tif")
    assert (found.pixel_size, found.unit) == (0.5, f"k{unit.strip()}")


@pytest.mark.parametrize(("size", "kept"), [(1e-9, 1e-9), (1e-12, None), (1e12, None)])
def test_a_pixel_size_that_tiff_cannot_hold_is_ignored(
    tmp_path: Path, size: float, kept: float | None
) -> None:
    write_labels(tmp_path / "l.tif", GREY, pixel_size=size, unit="m")
    assert read_image(tmp_path / "l.tif").pixel_size == kept


@pytest.mark.parametrize(
    ("shape", "seen"), [((48,), "shape 48;"), ((2, 3, 2, 6, 8), "(shape 2 × 3 × 2 × ")]
)
def test_arrays_that_are_no_image_are_refused_with_their_shape(
    tmp_path: Path, shape: tuple[int, ...], seen: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="a.tif") as caught:
        read_image(tmp_path / "a.tif")
    assert seen in str(caught.value)


def test_folders_leave_out_hidden_files_and_what_we_wrote(tmp_path: Path) -> None:
    for name in ("a.tif", "b.png", "._a.tif", ".s-0123456789abcdef.tif"):
        (tmp_path / name).touch()
    write_image(tmp_path / "c.tif", GREY)  # a micrograph, though of ours
    assert [p.name for p in image_files([tmp_path])] == ["a.tif", "b.png", "c.tif"]
    names, colors = {1: "α phase"}, dict.fromkeys(range(48), "#123456")
    write_labels(tmp_path / "a_segmentation.tif", GREY, class_names=names)
    write_color_png(tmp_path / "a_segmentation.png", GREY, colors)
    write_color_png(tmp_path / "phases.png", GREY, colors)
    write_labels(tmp_path / "b.tif", GREY)  # b.png is no preview of it
    with pytest.warns(UserWarning, match="4 of 7 images are labels or previews"):
        found = image_files([tmp_path, tmp_path / "b.tif"])
    assert [p.name for p in found] == ["a.tif", "b.png", "c.tif", "b.tif"]
    # Previews had no mark in 0.1.0.
    Image.fromarray(GREY).save(tmp_path / "a_segmentation.png")
    with pytest.warns(UserWarning, match="4 of 7"):
        assert len(image_files([tmp_path])) == 3
