"""Blocks give what the whole gives, are computed on demand, and go under a budget."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from micrographs import draw_scribbles, random_micrograph
from napari_hrdv2 import (
    Cancelled,
    PixelClassifier,
    block_features,
    compute_features,
    load_backbone,
)
from napari_hrdv2.core.backbones.base import JoinedBackbone
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.backbones.vit.weights import random_weights
from napari_hrdv2.core.checks import filled, prepare_image
from napari_hrdv2.core.features.blocks.grid import (
    MOST_BYTES,
    BlockAxis,
    plan_blocks,
)
from napari_hrdv2.core.features.blocks.statistics import read_statistics
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.memory import estimate
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.features.sample_cache import background_pixels
from napari_hrdv2.core.features.tiles import Tile
from napari_hrdv2.core.guidance.uncertainty import uncertainty_of

BLOCK = 256
EQUAL = 0.9999


@pytest.fixture(scope="module")
def backbones():
    loaded = {
        name: load_backbone(name, device="cpu") for name in ("filters", "embedded")
    }
    config = ViTConfig(embed_dim=32, depth=2, heads=2)
    loaded["vit"] = ViTBackbone("dinov2-small", config, random_weights(config))
    return loaded


def micrograph(height, width):
    """Return grey levels and classes of an image of any shape, darker at the left."""
    picture = random_micrograph(7, (height, width), color=False)
    return picture.image / 255 + np.linspace(0, 0.2, width), picture.labels


def block_estimate(shape, backbone, **options):
    given = shape, 1, backbone, "auto", FeatureOptions()
    return plan_blocks(*given, **options)[1]


def scribbles_on(classes):
    return draw_scribbles(np.random.default_rng(1), classes, 5)


class Lazy:
    """An image that can only be cut, and says what was read."""

    def __init__(self, array):
        self._array, self.reads = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        self.reads.append(key)
        return self._array[key]

    def __array__(self, *_, **__):
        raise AssertionError("the whole image was asked for")


def as_uint8(image):
    low, high = image.min(), image.max()
    return ((image - low) / (high - low) * 255).astype(np.uint8)


def as_colours(image):
    return np.stack([as_uint8(image), as_uint8(-image), as_uint8(image**2)], -1)


def as_uint16(image):
    return (image * 9000 + 1000).astype(np.uint16)


def with_holes(image):
    image = image.astype(np.float32)
    image[100:130, 240:270], image[-3:, :50] = np.nan, np.inf
    return image


KINDS = {"grey": as_uint8, "RGB": as_colours, "16 bit": as_uint16, "holes": with_holes}
CASES = [
    ("filters", "grey", (600, 413)),
    ("filters", "holes", (300, 521)),
    ("filters", "RGB", (300, 300)),
    ("embedded", "grey", (413, 600)),
    ("embedded", "16 bit", (521, 130)),
    ("embedded", "holes", (289, 523)),
    ("embedded", "RGB", (300, 301)),
]


@pytest.mark.parametrize(("name", "kind", "shape"), CASES)
def test_blocks_give_the_labels_of_the_whole(backbones, name, kind, shape) -> None:
    plain, classes = micrograph(*shape)
    image, labels = KINDS[kind](plain), scribbles_on(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 16 bit has no range of its own
        whole = compute_features(filled(image), backbones[name])
        blocks = block_features(Lazy(image), backbones[name], block=BLOCK)
    assert blocks.shape == whole.shape
    assert blocks.part_options == whole.part_options
    assert len(list(blocks.blocks())) > 1
    classifier = PixelClassifier().fit(whole, labels)
    wanted = classifier.predict(whole)
    assert (classifier.predict(blocks) == wanted).mean() >= EQUAL
    again = PixelClassifier().fit(blocks, labels)  # the same background sample
    assert (again.predict(whole) == wanted).mean() >= 0.999


@pytest.mark.parametrize("name", ["filters", "embedded"])
def test_a_block_differs_from_the_whole_by_rounding_only(backbones, name) -> None:
    image = as_uint8(micrograph(413, 540)[0])
    whole = compute_features(image, backbones[name])
    blocks = block_features(image, backbones[name], block=BLOCK)
    rows, columns = np.mgrid[:413:3, :540:5].reshape(2, -1)
    wanted, found = whole.sample(rows, columns), blocks.sample(rows, columns)
    apart = (found - wanted) / wanted.std(0).clip(1e-6)
    assert np.sqrt((apart**2).mean(0)).max() < 3e-3  # half precision
    dense = blocks.materialize()[:, ::3, ::5].reshape(len(found.T), -1)
    np.testing.assert_allclose(dense, found.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"levels": (120.0, 31.0)}, {"value_range": (20, 180)}, {"stride": 1}],
    ids=str,
)
def test_options_mean_the_same_in_blocks(backbones, options) -> None:
    image = as_uint8(micrograph(150, 301)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # grey levels beyond the range
        whole = compute_features(image, backbones["embedded"], **options)
        blocks = block_features(image, backbones["embedded"], block=BLOCK, **options)
    assert blocks.part_options == whole.part_options
    rows, columns = np.mgrid[:150:3, :301:5].reshape(2, -1)
    wanted, found = whole.sample(rows, columns), blocks.sample(rows, columns)
    apart = (found - wanted) / wanted.std(0).clip(1e-6)
    assert np.sqrt((apart**2).mean(0)).max() < 3e-3


def test_a_region_equals_that_part_of_all_blocks(backbones) -> None:
    image, classes = micrograph(300, 520)
    blocks = block_features(image, backbones["filters"], block=BLOCK)
    classifier = PixelClassifier().fit(blocks, scribbles_on(classes))
    labels = classifier.predict(blocks)
    uncertainty = uncertainty_of(classifier, blocks)
    output = np.zeros_like(labels)
    for region in blocks.blocks():
        output[region] = classifier.predict(blocks, region=region)
    np.testing.assert_array_equal(output, labels)
    region = slice(120, 299), slice(250, 400)
    np.testing.assert_array_equal(
        classifier.predict(blocks, region=region), labels[region]
    )
    some = classifier.predict_proba(blocks, region=region)
    np.testing.assert_array_equal(some, classifier.predict_proba(blocks)[:, *region])
    np.testing.assert_array_equal(
        uncertainty_of(classifier, blocks, region=region), uncertainty[region]
    )
    assert classifier.predict(blocks, region=(slice(5, 5), slice(0, 9))).shape == (0, 9)


def test_an_image_of_one_block_is_the_whole_bit_for_bit(backbones) -> None:
    image = as_uint8(micrograph(120, 97)[0])
    for name in ("filters", "vit"):
        whole = compute_features(image, backbones[name], "shift:1*flip", 5)
        blocks = block_features(image, backbones[name], "shift:1*flip", 5)
        np.testing.assert_array_equal(blocks.materialize(), whole.materialize())


@pytest.mark.parametrize("kind", ["memmap", "zarr", "dask"])
def test_any_array_that_can_be_cut_will_do(backbones, tmp_path, kind) -> None:
    plain = as_colours(micrograph(260, 270)[0])
    if kind == "memmap":
        image = np.memmap(tmp_path / "image", np.uint8, "w+", shape=plain.shape)
        image[:] = plain
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        image = zarr.open(
            str(tmp_path / "image.zarr"),
            mode="w",
            shape=plain.shape,
            chunks=(64, 64, 3),
            dtype="u1",
        )
        image[:] = plain
    else:
        dask = pytest.importorskip("dask.array")
        image = dask.from_array(plain, chunks=(100, 90, 3))
    blocks, wanted = (
        block_features(each, backbones["filters"], block=BLOCK)
        for each in (image, plain)
    )
    rows, columns = [3, 100, 259], [269, 7, 130]
    np.testing.assert_array_equal(
        blocks.sample(rows, columns), wanted.sample(rows, columns)
    )


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


def test_the_background_sample_is_from_a_few_blocks(backbones) -> None:
    few = block_features(
        as_uint8(micrograph(300, 520)[0]), backbones["filters"], block=BLOCK
    )
    np.testing.assert_array_equal(
        few.background_pixels(), background_pixels((300, 520))
    )
    row = np.tile(np.linspace(0, 1, 8192, dtype=np.float32), (600, 1))
    many = block_features(row, backbones["filters"], block=BLOCK)
    pixels = many.background_pixels()
    assert len(np.unique(pixels)) == len(pixels) == 2000
    rows, columns = np.divmod(pixels, 8192)
    side = many.block
    assert len({*zip(rows // side, columns // side, strict=True)}) <= 16
    assert columns.min() < 1000
    assert columns.max() > 7000
    first = np.divmod(many.background_pixels(100), 8192)[1]
    assert len(np.unique(first // 1024)) >= 7


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


@pytest.mark.parametrize("transforms", ["identity", "shift:1*flip"])
@pytest.mark.parametrize("name", ["vit", "joined"])
def test_blocks_of_a_transformer_have_no_seams(backbones, name, transforms) -> None:
    plain, classes = micrograph(500, 1300)
    image, backbone = as_uint8(plain), backbones["vit"]
    if name == "joined":
        backbone = JoinedBackbone((backbone, backbones["filters"]))
    whole = compute_features(image, backbone, transforms)
    blocks = block_features(image, backbone, transforms, block=448)
    assert [axis.count for axis in blocks.axes] == [2, 3]
    classifier = PixelClassifier().fit(whole, scribbles_on(classes))
    same = classifier.predict(blocks) == classifier.predict(whole)
    assert same.mean() > 0.97
    weight = np.random.default_rng(0).standard_normal((1, blocks.shape[0]))
    plane = blocks.project(weight, [0.5])[0]
    steps = np.abs(np.diff(plane, axis=1)).mean(axis=0)
    border = blocks.axes[1].side
    near = steps[border - 150 : border + 150]
    assert (
        near.max()
        <= 1.2 * np.delete(steps, np.arange(border - 150, border + 150)).max()
    )
    rows, columns = np.mgrid[:500:61, :1300:67].reshape(2, -1)
    sampled = blocks.sample(rows, columns) @ weight[0] + 0.5
    np.testing.assert_allclose(sampled, plane[rows, columns], atol=1e-2)


@pytest.mark.parametrize("blend", [0, 30])
@pytest.mark.parametrize("length", [97, 400, 1001])
def test_blocks_together_count_once_everywhere(length, blend) -> None:
    axis = BlockAxis(length, 160, 40, blend, 8, 16, 8)
    pixels, total = np.arange(length), np.zeros(length)
    for number in range(axis.count):
        weights = axis.weights(number, pixels)
        window, seen = axis.window(number), axis.seen(number)
        assert (weights[: window.start] == 0).all()
        assert (weights[window.stop :] == 0).all()
        assert seen.start <= window.start < window.stop <= seen.stop
        assert window.start % 8 == seen.start % 8 == 0
        assert all(
            number in axis.touching(slice(p, p + 1)) for p in pixels[weights > 0]
        )
        total += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


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
    for options in ({"interpolation": "bilateral"}, {"compat": "reference"}):
        with pytest.raises(ValueError, match="needs the whole image"):
            block_features(image, backbones["vit"], **options)
    with pytest.raises(ValueError, match="regions"):
        spit = load_backbone("spit-small", weights="random", device="cpu")
        block_features(image, spit)
    with pytest.raises(ValueError, match="block: 7"):
        block_features(image, backbones["filters"], block=7)


@pytest.mark.parametrize("name", ["filters", "embedded", "vit"])
def test_the_estimate_does_not_grow_with_the_image(backbones, name) -> None:
    small, large = (
        block_estimate((side, side), backbones[name], block=1022)
        for side in (9198, 40880)
    )
    assert large.peak_bytes == small.peak_bytes
    assert large.token_bytes == small.token_bytes
    assert large.passes > 19 * small.passes
    window = estimate((1500, 1500), backbones[name])
    assert large.token_bytes <= large.peak_bytes <= 1.5 * window.peak_bytes
    kept = block_estimate((9198, 9198), backbones[name], block=1022, budget_bytes=10**9)
    assert 0.9e9 < kept.token_bytes <= 1e9


def test_the_estimate_counts_the_tokens_of_a_block(backbones) -> None:
    image = as_uint8(micrograph(300, 800)[0])
    blocks = block_features(image, backbones["embedded"], block=BLOCK, budget_bytes=0)
    blocks.sample([150], [400])
    told = block_estimate((300, 800), backbones["embedded"], block=BLOCK)
    assert 0.7 * told.token_bytes < blocks.own_nbytes <= told.token_bytes
    cost = estimate_cost((300, 800), FeatureOptions("embedded", device="cpu"), BLOCK)
    assert cost.peak_bytes == told.peak_bytes


def test_a_block_that_does_not_fit_is_refused_unread(backbones, monkeypatch) -> None:
    monkeypatch.setattr(
        "napari_hrdv2.core.features.memory.available_memory", lambda _: 9
    )
    image = Lazy(as_uint8(micrograph(300, 800)[0]))
    with pytest.raises(MemoryError, match="smaller blocks"):
        block_features(image, backbones["filters"])
    assert image.reads == []


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


def test_blocks_are_as_large_as_memory_bears(backbones) -> None:
    image = Lazy(np.broadcast_to(np.arange(9000, dtype=np.uint16), (6000, 9000)))
    sides = {
        name: plan_blocks(image.shape, 1, backbone, "identity", FeatureOptions(), None)
        for name, backbone in backbones.items()
    }
    assert {name: grid.rows.side for name, (grid, _) in sides.items()} == {
        "filters": 1808,  # 9000 in 5
        "embedded": 1504,
        "vit": 1008,
    }
    assert all(needed.peak_bytes <= MOST_BYTES for _, needed in sides.values())
