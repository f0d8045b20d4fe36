"""Blocks give what the whole gives, whatever the backbone."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

from estimates import estimate
from images_in_parts import KINDS, Lazy, as_colours, as_uint8, micrograph
from micrographs import draw_scribbles
from napari_hrdv2 import (
    PixelClassifier,
    block_features,
    compute_features,
)
from napari_hrdv2.core.backbones.base import JoinedBackbone
from napari_hrdv2.core.checks import filled
from napari_hrdv2.core.features.blocks.grid import (
    MOST_BYTES,
    BlockAxis,
    plan_blocks,
)
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.features.sample_cache import background_pixels
from napari_hrdv2.core.guidance.uncertainty import uncertainty_of
from napari_hrdv2.core.postprocess.guides import guide_from

BLOCK = 256
EQUAL = 0.9999


def block_estimate(shape, backbone, **options):
    given = shape, 1, backbone, "auto", FeatureOptions()
    return plan_blocks(*given, **options)[1]


def scribbles_on(classes):
    return draw_scribbles(np.random.default_rng(1), classes, 5)


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
    image = as_uint8(micrograph(289, 523)[0])
    whole = compute_features(image, backbones[name])
    blocks = block_features(image, backbones[name], block=BLOCK)
    rows, columns = np.mgrid[:289:3, :523:5].reshape(2, -1)
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


@pytest.mark.parametrize(
    ("name", "transforms"), [("vit", "identity"), ("joined", "shift:1:neumann*flip")]
)
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


@pytest.mark.filterwarnings("ignore:float32 grey levels are scaled by")
@pytest.mark.parametrize(
    ("name", "kind", "shape", "block", "equal"),
    [
        ("embedded", "RGB", (190, 523), BLOCK, EQUAL),
        ("embedded", "holes", (290, 300), BLOCK, EQUAL),
        ("vit", "grey", (500, 1300), 448, 0.99),
    ],
)
def test_blocks_are_guided_by_the_whole_image(
    backbones, name, kind, shape, block, equal, tmp_path
) -> None:
    plain, classes = micrograph(*shape)
    image, how = KINDS[kind](plain), {"interpolation": "bilateral+2"}
    whole = compute_features(filled(image), backbones[name], **how)
    given = {"block": block, "budget_bytes": 0, "spill": tmp_path}
    lazy = Lazy(image)
    blocks = block_features(lazy, backbones[name], **given, **how)
    assert blocks.part_options == whole.part_options
    window = blocks.axes.window((0, 1))
    (guide,) = blocks._maker._guides(blocks._maker.ends)
    bands = np.moveaxis(np.atleast_3d(filled(image)), -1, 0)[:3]
    wanted = guide_from(torch.from_numpy(bands.astype(np.float32)))[:, *window]
    np.testing.assert_allclose(guide.in_bytes(window), wanted, atol=1)
    classifier = PixelClassifier().fit(whole, scribbles_on(classes))
    labels = classifier.predict(whole)
    assert (classifier.predict(blocks) == labels).mean() >= equal
    rows, columns = np.mgrid[: shape[0] : 9, : shape[1] : 11].reshape(2, -1)
    wanted, found = whole.sample(rows, columns), blocks.sample(rows, columns)
    apart = (found - wanted) / wanted.std(0).clip(1e-6)
    # A Vision Transformer sees other surroundings in a block.
    assert np.sqrt((apart**2).mean(0)).max() < (5e-3 if name == "embedded" else 0.8)
    copied = pickle.loads(pickle.dumps(blocks)).again(lazy, backbones[name])
    np.testing.assert_array_equal(copied.sample(rows[:9], columns[:9]), found[:9])


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


@pytest.mark.parametrize(
    ("free", "sides"),
    [
        (10**12, {"filters": 1808, "embedded": 1808, "vit": 1008}),  # 9000 in 5 and 9
        (10**9, {"filters": 1504, "embedded": 1504, "vit": 1008}),
    ],
)
def test_blocks_are_as_large_as_memory_bears(
    backbones, monkeypatch, free, sides
) -> None:
    monkeypatch.setattr(
        "napari_hrdv2.core.features.memory.available_memory", lambda _: free
    )
    for name, side in sides.items():
        given = (6000, 9000), 1, backbones[name], "identity", FeatureOptions()
        grid, needed = plan_blocks(*given, None)
        assert grid.rows.side == grid.columns.side == side
        assert needed.peak_bytes <= min(free, MOST_BYTES)
