"""What was damaged on the way is not taken for other labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_hrdv2.files import (
    LabelClasses,
    read_image,
    read_labels,
    read_ome_zarr,
    write_color_png,
    write_ome_zarr,
)
from napari_hrdv2.files.ome_zarr import read_image_and_labels

RANDOM = np.random.default_rng(3)
LABELS = np.repeat(np.repeat(RANDOM.integers(0, 5, (12, 16)), 4, 0), 4, 1).astype("u1")


def flips(path: Path, count: int, start: int = 0) -> list[bytes]:
    """Return the content of a file with one bit flipped, so many times."""
    content = path.read_bytes()
    found = []
    for bit in RANDOM.integers(8 * start, 8 * len(content), count):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        found.append(bytes(flipped))
    return found


@pytest.mark.parametrize("kind", ["ids", "palette", "deep"])
def test_a_png_with_a_flipped_bit_gives_the_same_labels_or_none(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "l.png"
    if kind == "palette":
        write_color_png(path, LABELS, dict.fromkeys(range(5), "#123456"))
    else:
        wide = LABELS.astype(np.uint16) * 300 if kind == "deep" else LABELS
        Image.fromarray(wide).save(path)
    wanted, refused = read_labels(path), 0
    for content in flips(path, 150):
        path.write_bytes(content)
        try:
            assert np.array_equal(read_labels(path), wanted)
        except (ValueError, OSError):
            refused += 1
    assert refused > 100


def test_the_checksum_is_named(tmp_path: Path) -> None:
    path = tmp_path / "l.png"
    Image.fromarray(LABELS).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 30] ^= 1
    path.write_bytes(content)
    for read in (read_labels, read_image):
        with pytest.raises(ValueError, match="l.png is damaged .* checksum of IDAT"):
            read(path)


def test_a_packed_tiff_with_a_flipped_bit_in_its_pixels_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "l.tif"
    tifffile.imwrite(path, LABELS, compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    content = path.read_bytes()
    for bit in RANDOM.integers(8 * start, 8 * (start + count), 60):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert np.array_equal(read_labels(path), LABELS)
        except ValueError:
            continue


def zarr_folder(path: Path, version: str = "0.4") -> Path:
    pytest.importorskip("zarr")
    labels = np.zeros((1100, 1030), np.uint8)  # four chunks, of which two are blank
    labels[:20, :20] = 1
    labels[1030:1040, 10:20] = 2
    write_ome_zarr(path, labels, labels, LabelClasses(), version=version)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_that_is_missing_is_told(tmp_path: Path, version: str) -> None:
    path = zarr_folder(tmp_path / "o.zarr", version)
    assert "not there" not in read_ome_zarr(path).note
    chunks = "labels/segmentation/0/" + ("1/0" if version == "0.4" else "c/1/0")
    (path / chunks).unlink()
    found = read_ome_zarr(path)
    assert found.note.endswith("; 1 chunk of 4 not there, read as 0.")
    assert found.labels.max() == 1
    (path / ("0/0/0" if version == "0.4" else "0/c/0/0")).unlink()
    with pytest.warns(UserWarning, match="o.zarr: the image; 1 chunk of 4 not there"):
        read_image_and_labels(path)
