"""What is read of an image for its blocks, and what is kept of them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from images_in_parts import KINDS, Lazy, as_uint8, as_uint16, micrograph
from napari_hrdv2 import (
    Cancelled,
    block_features,
    load_backbone,
)
from napari_hrdv2.core.checks import filled, prepare_image
from napari_hrdv2.core.features.blocks.grid import plan_blocks
from napari_hrdv2.core.features.blocks.statistics import read_statistics
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.features.tiles import Tile

BLOCK = 256


def statistics_of(image, **options):
    options = {"value_range": None, "paddings": [(3, 1)], "warn": False} | options
    return read_statistics(image, tick=lambda *_: None, **options)


@pytest.mark.parametrize("kind", [*KINDS, "fill values", "range"])
def test_one_pass_knows_what_the_whole_image_shows(monkeypatch, kind) -> None:
    monkeypatch.setattr("napari_hrdv2.core.features.blocks.statistics.TILE", 64)
    plain, options = micrograph(130, 150)[0], {}
    if kind == "fill values":
        image = plain.astype(np.float32)
        image[3, 100:140], image[90, 5] = 1e36, -1e36
    elif kind == "range":
        image, options = as_uint16(plain), {"value_range": (3000, 9000)}
    else:
        image = KINDS[kind](plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = prepare_image(filled(image), warn=False, **options)
        found = statistics_of(image, **options)
    assert found.value_range == wanted.value_range
    padded = np.pad(wanted.pixels, ((0, 0), (0, 3), (0, 1)), mode="reflect")
    levels = padded.mean(dtype=np.float64), padded.std(dtype=np.float64)
    np.testing.assert_allclose(found.levels[3, 1], levels, rtol=1e-5)


def test_missing_alpha_and_colours_are_filled_together() -> None:
    rng = np.random.default_rng(3)
    image = rng.random((70, 90, 4)).astype(np.float32)
    image[5, 6, 0], image[7, 8, 3], image[9, 9] = np.nan, np.nan, np.inf
    whole = filled(image)
    wanted = prepare_image(whole, value_range=(0, 1), warn=False).pixels
    found = statistics_of(image, value_range=(0.0, 1.0))
    tile = Tile(slice(2, 60), slice(1, 80))
    np.testing.assert_allclose(found.prepared(image, tile), wanted[:, 2:60, 1:80])
    padded = np.pad(wanted, ((0, 0), (0, 3), (0, 1)), mode="reflect")
    levels = padded.mean(dtype=np.float64), padded.std(dtype=np.float64)
    np.testing.assert_allclose(found.levels[3, 1], levels, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["?", "i2", "u4", "i8", ">u2", "f2", "f8"])
def test_every_kind_of_number_is_known_as_a_whole(monkeypatch, dtype) -> None:
    monkeypatch.setattr("napari_hrdv2.core.features.blocks.statistics.TILE", 64)
    plain = micrograph(130, 75)[0]
    image = plain > plain.mean() if dtype == "?" else (plain * 900).astype(dtype)
    wanted = prepare_image(image, warn=False)
    found = statistics_of(image)
    assert found.value_range == wanted.value_range
    padded = np.pad(wanted.pixels, ((0, 0), (0, 3), (0, 1)), mode="reflect")
    levels = padded.mean(dtype=np.float64), padded.std(dtype=np.float64)
    np.testing.assert_allclose(found.levels[3, 1], levels, rtol=1e-5)
    whole = Tile(slice(0, 130), slice(0, 75))
    np.testing.assert_array_equal(found.prepared(image, whole), wanted.pixels)


@pytest.mark.parametrize("chunk", [(100, 90), (3, 400), (300, 1), (7, 64)])
def test_no_chunk_is_read_twice_for_the_statistics(monkeypatch, chunk) -> None:
    monkeypatch.setattr("napari_hrdv2.core.features.blocks.statistics.TILE", 64)
    image = Lazy(as_uint8(micrograph(290, 400)[0]))
    image.chunks = chunk
    found, wanted = statistics_of(image), statistics_of(image._array)
    assert found.value_range == wanted.value_range
    np.testing.assert_allclose(found.levels[3, 1], wanted.levels[3, 1])
    starts = {(key[0].start, key[1].start) for key in image.reads}
    assert len(starts) == len(image.reads)
    assert all(row % chunk[0] == column % chunk[1] == 0 for row, column in starts)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.ones((300, 300)), "every pixel has the value 1"),
        (np.full((300, 300), np.nan), "every pixel is NaN"),
        (np.ones((300, 300, 5)), "is not one micrograph"),
        (np.ones((300, 300), complex), "is not a grey level"),
    ],
)
def test_what_is_no_micrograph_is_refused(backbones, image, says) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        block_features(image, backbones["filters"])


def test_what_needs_the_whole_image_is_refused(backbones) -> None:
    image = micrograph(100, 100)[0]
    with pytest.raises(ValueError, match="needs the whole image"):
        block_features(image, backbones["vit"], compat="reference")
    options = FeatureOptions("dinov2-small", interpolation="jbu")
    with pytest.raises(ValueError, match="jbu needs the whole image"):
        plan_blocks((900, 900), 1, backbones["vit"], "identity", options, None)
    with pytest.raises(ValueError, match="regions"):
        spit = load_backbone("spit-small", weights="random", device="cpu")
        block_features(image, spit)
    with pytest.raises(ValueError, match="block: 7"):
        block_features(image, backbones["filters"], block=7)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"value_range": (9, 3)}, "value_range: .* is not a range"),
        ({"budget_bytes": -1}, "budget_bytes: -1"),
        ({"spill_bytes": 1.5}, "spill_bytes: 1.5"),
        ({"block": 300.0}, "block: 300.0"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(
    backbones, options, says
) -> None:
    image = Lazy(as_uint8(micrograph(300, 300)[0]))
    with pytest.raises(ValueError, match=says):
        block_features(image, backbones["filters"], **options)
    assert image.reads == []


def test_blocks_go_under_the_budget_and_come_back_the_same(backbones, tmp_path) -> None:
    image = as_uint8(micrograph(300, 1000)[0])
    rows, columns = np.full(4, 200), np.array([10, 400, 700, 990])
    kept = block_features(image, backbones["filters"], block=BLOCK)
    wanted = kept.sample(rows, columns)
    one = kept.own_nbytes // 8  # of 2 x 4 blocks, about
    for options in (
        {},
        {"spill": tmp_path},
        {"spill": tmp_path, "spill_bytes": 3 * one},
    ):
        few = block_features(
            image, backbones["filters"], block=BLOCK, budget_bytes=2 * one, **options
        )
        for _ in range(2):
            np.testing.assert_array_equal(few.sample(rows, columns), wanted)
            assert few.own_nbytes <= 2 * one
            files = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
            assert files <= options.get("spill_bytes", 10**9)
        few.drop()
        assert few.own_nbytes == 0
    del few
    assert list(tmp_path.iterdir()) == []


def test_a_block_is_taken_from_the_disk_rather_than_computed(
    backbones, tmp_path
) -> None:
    image = Lazy(as_uint8(micrograph(300, 600)[0]))
    blocks = block_features(
        image, backbones["embedded"], block=BLOCK, budget_bytes=0, spill=tmp_path
    )
    wanted = blocks.sample([10, 10], [10, 590])
    image.reads.clear()
    np.testing.assert_array_equal(blocks.sample([10, 10], [10, 590]), wanted)
    assert image.reads == []
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(b"no tokens")
    np.testing.assert_array_equal(blocks.sample([10, 10], [10, 590]), wanted)
    assert image.reads != []


def test_threads_may_share_blocks(backbones) -> None:
    image = as_uint8(micrograph(300, 700)[0])
    blocks = block_features(image, backbones["filters"], block=BLOCK, budget_bytes=0)
    columns = np.arange(0, 700, 3)
    with ThreadPoolExecutor(3) as threads:
        found = list(
            threads.map(
                lambda row: blocks.sample(np.full(len(columns), row), columns),
                [9, 9, 9],
            )
        )
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_thread_that_waits_for_a_block_can_be_stopped(backbones) -> None:
    image = as_uint8(micrograph(300, 520)[0])
    blocks = block_features(image, backbones["filters"], block=BLOCK)
    begun, released = Event(), Event()

    def slowly(*_: int) -> None:
        begun.set()
        released.wait(60)

    def sample():
        with blocks.reporting(slowly):
            return blocks.sample([0], [0])

    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(sample)
        assert begun.wait(60)
        try:
            with (
                blocks.reporting(should_stop=lambda: True),
                pytest.raises(Cancelled, match="waiting"),
            ):
                blocks.sample([299], [519])
        finally:
            released.set()
        assert other.result(60).shape == (1, blocks.shape[0])


def test_work_is_told_of_and_can_be_stopped(backbones) -> None:
    image = as_uint8(micrograph(300, 520)[0])
    with pytest.raises(Cancelled, match="reading the image"):
        block_features(image, backbones["filters"], should_stop=lambda: True)
    told = []
    blocks = block_features(
        image,
        backbones["filters"],
        block=BLOCK,
        progress=lambda *each: told.append(each),
    )
    assert told[-1] == (1, 1)
    with blocks.reporting(should_stop=lambda: True), pytest.raises(Cancelled):
        blocks.sample([0], [0])
    told.clear()
    with blocks.reporting(lambda *each: told.append(each)):
        blocks.sample([0], [0])
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 0
    with pytest.raises(Cancelled):
        blocks.project(np.zeros((2, blocks.shape[0])), [0, 0], should_stop=lambda: True)


def test_folders_of_killed_programs_go(backbones, tmp_path) -> None:
    code = (
        "import os, sys\n"
        "from napari_hrdv2.core.features.blocks.cache import Spill\n"
        "kept = Spill(sys.argv[1], 9)\n"
        "(kept.folder / 'block').write_text('tokens')\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "blocks-of-mine").mkdir()
    image = as_uint8(micrograph(60, 60)[0])
    first, second = (
        block_features(image, backbones["filters"], spill=tmp_path) for _ in range(2)
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert left.name not in names
    assert len(names) == 3  # that of another program, and those in use
    del first, second
    assert [path.name for path in tmp_path.iterdir()] == ["blocks-of-mine"]


def test_a_full_disk_costs_no_work(backbones, tmp_path) -> None:
    image = as_uint8(micrograph(300, 520)[0])
    blocks = block_features(
        image, backbones["filters"], block=BLOCK, budget_bytes=0, spill=tmp_path
    )
    (folder,) = tmp_path.iterdir()
    folder.rmdir()
    first, second = (blocks.sample([5, 299], [7, 519]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_only_what_is_asked_for_is_read_and_computed(backbones) -> None:
    image = Lazy(as_uint8(micrograph(300, 2000)[0]))
    blocks = block_features(image, backbones["filters"], block=BLOCK)
    assert sum(np.empty(image.shape)[key].size for key in image.reads) == 300 * 2000
    image.reads.clear()
    blocks.sample([5, 290], [3, 100])
    assert {key[1].start for key in image.reads} == {0}
    read = len(image.reads)
    blocks.sample([7], [4])
    assert len(image.reads) == read  # it is kept
