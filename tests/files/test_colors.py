"""Colour spaces, bits and orientation: what a file stores and what is to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from files.raw_files import SHORT, lzw, packed, write_png, write_tiff
from napari_hrdv2.files import import_labels, read_image, read_labels, read_turn

RANDOM = np.random.default_rng(7)
SHAPE = (20, 27)  # no multiple of anything
GREY = RANDOM.integers(0, 256, SHAPE, dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
DEEP = RANDOM.integers(1000, 5000, (*SHAPE, 3), dtype=np.uint16)
SMOOTH = np.dstack([np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)] * 3)
SMOOTH[..., 1] //= 2


def off_by(path: Path, wanted: np.ndarray) -> int:
    """Return the largest difference of an image from what is wanted."""
    found = read_image(path).data
    assert found.shape == wanted.shape
    return int(np.abs(found.astype(int) - wanted.astype(int)).max())


# --- Colour spaces --------------------------------------------------------------------
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_inks_in_a_tiff_become_the_colours_they_print(
    tmp_path: Path, compression: str | None
) -> None:
    entry = Image.fromarray(RGB).convert("CMYK")
    # Part of the darkness as black ink, which a reader that drops it would lose.
    inks = np.asarray(entry).copy()
    inks[..., 3] = inks[..., :3].min(axis=-1) // 2
    entry = Image.fromarray(inks, "CMYK")
    entry.save(tmp_path / "inks.tif", compression=compression)
    assert off_by(tmp_path / "inks.tif", np.asarray(entry.convert("RGB"))) <= 1


def test_inks_of_16_bit_keep_their_depth(tmp_path: Path) -> None:
    inks = RANDOM.integers(0, 65536, (*SHAPE, 4), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "i.tif", inks, photometric="separated")
    light = 65535.0 - inks
    wanted = light[..., :3] * light[..., 3:] / 65535
    found = read_image(tmp_path / "i.tif").data
    assert found.dtype == np.uint16
    assert np.abs(found - wanted).max() <= 1


def test_inks_in_a_jpeg_and_in_a_jpeg_tiff_become_colours(tmp_path: Path) -> None:
    entry = Image.fromarray(SMOOTH).convert("CMYK")
    entry.save(tmp_path / "i.jpg", quality=100)
    entry.save(tmp_path / "i.tif", compression="jpeg", quality=100)
    assert off_by(tmp_path / "i.jpg", SMOOTH) <= 6
    assert off_by(tmp_path / "i.tif", SMOOTH) <= 6


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_lab_becomes_rgb(tmp_path: Path, compression: str | None) -> None:
    entry = Image.fromarray(SMOOTH).convert("LAB")
    entry.save(tmp_path / "lab.tif", compression=compression)
    assert off_by(tmp_path / "lab.tif", SMOOTH) <= 8


def test_lab_without_signs_becomes_the_same(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).convert("LAB").save(tmp_path / "lab.tif")
    samples = tifffile.imread(tmp_path / "lab.tif")
    data = (samples ^ np.array([0, 128, 128], np.uint8)).tobytes()
    write_tiff(tmp_path / "icc.tif", data, SMOOTH.shape[:2], samples=3, photometric=9)
    assert off_by(tmp_path / "icc.tif", SMOOTH) <= 8


@pytest.mark.parametrize("compressed", [False, True])
def test_ycbcr_becomes_rgb(tmp_path: Path, compressed: bool) -> None:
    data = np.asarray(Image.fromarray(SMOOTH).convert("YCbCr")).tobytes()
    write_tiff(
        tmp_path / "y.tif",
        lzw(data) if compressed else data,
        SMOOTH.shape[:2],
        samples=3,
        photometric=6,
        compression=5 if compressed else 1,
        more={530: (SHORT, [1, 1])},
    )
    assert off_by(tmp_path / "y.tif", SMOOTH) <= 3


@pytest.mark.parametrize(
    ("photometric", "bits", "name"),
    [(10, 8, "ITULAB"), (8, 16, "CIELAB"), (32803, 8, "CFA"), (34892, 8, "LINEAR_RAW")],
)
def test_other_colours_are_refused_by_their_name(
    tmp_path: Path, photometric: int, bits: int, name: str
) -> None:
    data = bytes(RGB.size * bits // 8)
    write_tiff(
        tmp_path / "c.tif", data, SHAPE, samples=3, bits=bits, photometric=photometric
    )
    with pytest.raises(ValueError, match=f"c.tif holds .* {name}, .*; save it as RGB"):
        read_image(tmp_path / "c.tif")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_of_few_colours_is_read(tmp_path: Path, bits: int) -> None:
    """As GIMP and ImageMagick write images of two colours."""
    index = RANDOM.integers(0, 2**bits, SHAPE)
    table = RANDOM.integers(0, 256, (2**bits, 3))
    write_tiff(
        tmp_path / "p.tif",
        packed(index, bits),
        SHAPE,
        bits=bits,
        photometric=3,
        more={320: (SHORT, (table.T * 257).ravel().tolist())},
    )
    assert np.array_equal(read_image(tmp_path / "p.tif").data, table[index])
    assert np.array_equal(read_labels(tmp_path / "p.tif"), index)


def test_a_palette_that_is_too_short_is_refused(tmp_path: Path) -> None:
    more = {320: (SHORT, [0, 65535] * 3)}
    write_tiff(tmp_path / "p.tif", GREY.tobytes(), SHAPE, photometric=3, more=more)
    with pytest.raises(ValueError, match="p.tif is damaged"):
        read_image(tmp_path / "p.tif")


# --- Bits -----------------------------------------------------------------------------
@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("filtered", [0, 1])
def test_a_png_keeps_16_bits_of_its_colours(
    tmp_path: Path, bands: int, filtered: int
) -> None:
    deep = RANDOM.integers(0, 65536, (*SHAPE, bands), dtype=np.uint16)
    write_png(tmp_path / "d.png", deep, filtered=filtered)
    found = read_image(tmp_path / "d.png").data
    assert found.dtype == np.uint16
    assert np.array_equal(found, deep)


def test_a_png_keeps_16_bits_of_grey_with_alpha(tmp_path: Path) -> None:
    deep = RANDOM.integers(0, 65536, (*SHAPE, 2), dtype=np.uint16)
    write_png(tmp_path / "d.png", deep, filtered=1)
    assert np.array_equal(read_image(tmp_path / "d.png").data, deep[..., 0])


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("rows", [0, 7])
def test_lzw_keeps_16_bits_of_colours(
    tmp_path: Path, predictor: int, rows: int
) -> None:
    step = np.diff(DEEP, axis=1, prepend=np.zeros_like(DEEP[:, :1]))
    data = (step if predictor == 2 else DEEP).astype("<u2")
    strips = [
        lzw(data[start : start + (rows or 99)].tobytes())
        for start in range(0, len(data), rows or 99)
    ]
    write_tiff(
        tmp_path / "d.tif",
        strips,
        SHAPE,
        bits=16,
        samples=3,
        photometric=2,
        compression=5,
        predictor=predictor,
        rows=rows,
    )
    found = read_image(tmp_path / "d.tif").data
    assert found.dtype == np.uint16
    assert np.array_equal(found, DEEP)


def test_lzw_tiles_of_floats_are_put_together(tmp_path: Path) -> None:
    wanted = RANDOM.normal(size=SHAPE).astype(np.float32)
    padded = np.zeros((32, 32), np.float32)
    padded[: SHAPE[0], : SHAPE[1]] = wanted
    tiles = []
    for row in (0, 16):
        for column in (0, 16):
            part = padded[row : row + 16, column : column + 16]
            # The floating-point predictor: bytes by their weight, then differences.
            planes = part.astype(">f4").view(np.uint8).reshape(16, 16, 4).swapaxes(1, 2)
            flat = planes.reshape(16, 64)
            tiles.append(lzw(np.diff(flat, axis=1, prepend=np.uint8(0)).tobytes()))
    write_tiff(
        tmp_path / "f.tif",
        tiles,
        SHAPE,
        bits=32,
        compression=5,
        predictor=3,
        tile=(16, 16),
        more={339: (SHORT, [3])},
    )
    assert np.array_equal(read_image(tmp_path / "f.tif").data, wanted)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("samples", [1, 3])
def test_packed_bits_are_unpacked(tmp_path: Path, bits: int, samples: int) -> None:
    wanted = RANDOM.integers(0, 2**bits, (*SHAPE, samples))
    write_tiff(
        tmp_path / "p.tif",
        packed(wanted.reshape(SHAPE[0], -1), bits),
        SHAPE,
        bits=bits,
        samples=samples,
        photometric=1 if samples == 1 else 2,
    )
    found = read_image(tmp_path / "p.tif").data
    assert np.array_equal(found, wanted[..., 0] if samples == 1 else wanted)


def test_few_bits_of_grey_are_spread_to_be_seen_and_stay_ids_in_labels(
    tmp_path: Path,
) -> None:
    values = RANDOM.integers(0, 16, SHAPE)
    for name, photometric in (("black", 1), ("white", 0)):
        data = packed(values, 4)
        write_tiff(
            tmp_path / f"{name}.tif", data, SHAPE, bits=4, photometric=photometric
        )
    assert np.array_equal(read_image(tmp_path / "black.tif").data, values * 17)
    assert np.array_equal(read_image(tmp_path / "white.tif").data, 255 - values * 17)
    assert np.array_equal(read_labels(tmp_path / "black.tif"), values)


def test_fax_is_not_turned_over_twice(tmp_path: Path) -> None:
    entry = Image.fromarray(GREY > 128)
    entry.save(tmp_path / "g4.tif", compression="group4")
    assert np.array_equal(read_image(tmp_path / "g4.tif").data, GREY > 128)


# --- Compressions ---------------------------------------------------------------------
def test_a_jpeg_page_with_a_thumbnail_is_one_image(tmp_path: Path) -> None:
    entry = Image.fromarray(SMOOTH)
    entry.save(
        tmp_path / "j.tif",
        compression="jpeg",
        quality=100,
        save_all=True,
        append_images=[entry.resize((24, 16))],
    )
    assert off_by(tmp_path / "j.tif", SMOOTH) <= 8


# --- Orientation ----------------------------------------------------------------------
def as_seen(data: np.ndarray, orientation: int) -> np.ndarray:
    """Slowly: by what EXIF says of the first row and the first column."""
    steps = {
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
        8: np.rot90,
    }
    return steps[orientation](data)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["plain.tif", "lzw.tif", "jpeg.tif", "jpg", "png"])
def test_an_image_is_turned_as_its_tag_asks(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    path = tmp_path / f"o.{kind}"
    entry = Image.fromarray(SMOOTH)
    if kind in ("plain.tif", "lzw.tif"):
        more = {274: (SHORT, [orientation])}
        data, code = SMOOTH.tobytes(), 1
        if kind == "lzw.tif":
            data, code = lzw(data), 5
        write_tiff(
            path,
            data,
            SMOOTH.shape[:2],
            samples=3,
            photometric=2,
            compression=code,
            more=more,
        )
    else:
        exif = entry.getexif()
        exif[0x112] = orientation
        how = {"compression": "jpeg"} if kind == "jpeg.tif" else {}
        entry.save(path, exif=exif, quality=100, subsampling=0, **how)
    with pytest.warns(UserWarning, match=f"{path.name} is (turned|mirrored)"):
        assert off_by(path, as_seen(SMOOTH, orientation)) <= 6


def test_labels_are_turned_as_images_are(tmp_path: Path) -> None:
    more = {274: (SHORT, [6])}
    write_tiff(tmp_path / "l.tif", GREY.tobytes(), SHAPE, more=more)
    assert np.array_equal(read_labels(tmp_path / "l.tif"), np.rot90(GREY, -1))


# --- Labels in more bands than they need ----------------------------------------------
@pytest.mark.parametrize("kind", ["rgb.png", "rgb.tif", "rgba.png", "la.png", "la.tif"])
def test_a_grey_mask_is_one_whatever_bands_it_is_saved_in(
    tmp_path: Path, kind: str
) -> None:
    mask = np.array([0, 127, 255], np.uint8)[GREY % 3]
    alpha = np.where(np.arange(SHAPE[1]) < 5, 0, 255).astype(np.uint8)
    alpha = np.broadcast_to(alpha, SHAPE)
    bands = {"rgb": [mask] * 3, "rgba": [mask] * 3 + [alpha], "la": [mask, alpha]}
    pixels = np.dstack(bands[kind.split(".")[0]])
    path = tmp_path / kind
    if kind.endswith("png"):
        write_png(path, pixels)
    else:
        n = pixels.shape[-1]
        more = {338: (SHORT, [2])} if n == 2 else {}
        write_tiff(
            path,
            pixels.tobytes(),
            SHAPE,
            samples=n,
            photometric=1 if n == 2 else 2,
            more=more,
        )
    seen = alpha > 0 if kind.split(".")[0] != "rgb" else np.ones(SHAPE, bool)
    assert np.array_equal(
        import_labels(path, SHAPE).labels, np.where(seen, GREY % 3, 0)
    )


def test_a_mask_of_16_bit_colours_keeps_its_numbers(tmp_path: Path) -> None:
    ids = RANDOM.integers(0, 999, SHAPE).astype(np.uint16)
    write_png(tmp_path / "m.png", np.dstack([ids] * 3))
    assert np.array_equal(read_labels(tmp_path / "m.png"), ids)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_header_tells_how_its_image_is_turned(tmp_path, suffix):
    path, tags = tmp_path / f"turned.{suffix}", Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path, exif=tags)
    assert read_turn(path) == "turned by 90° to the right"
    path.write_bytes(b"no image")
    assert read_turn(path) == ""
