"""Features of a resized image at the pixels that it had before."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from skimage.transform import resize

from images_in_parts import KINDS, Lazy, micrograph
from micrographs import draw_scribbles
from napari_hrdv2 import (
    PixelClassifier,
    block_features,
    compute_features,
    load_backbone,
)
from napari_hrdv2.core.features.blocks.statistics import read_statistics
from napari_hrdv2.core.features.resampled import (
    ResampledFeatures,
    ResizedImage,
    compute_resampled,
    grain_of,
    resampling_factors,
    resized,
    resized_shape,
)
from napari_hrdv2.core.measure.scores import mean_iou
from synthetic import two_textures

SHAPES = [(37, 53), (20, 90), (64, 64), (150, 61)]


def slow_axis(length: int, there: int) -> np.ndarray:
    """Return the (length, there) matrix of a triangle filter, number by number."""
    matrix = np.zeros((length, there))
    reach = max(there / length, 1)
    for pixel in range(length):
        centre = (pixel + 0.5) * there / length - 0.5
        for tap in range(-2 * there, 3 * there):
            weight = max(0.0, 1 - abs(tap - centre) / reach)
            matrix[pixel, min(max(tap, 0), there - 1)] += weight
        matrix[pixel] /= matrix[pixel].sum()
    return matrix


@pytest.fixture(scope="module")
def inner():
    image = np.random.default_rng(3).integers(0, 255, (41, 63), np.uint8)
    return compute_features(image, load_backbone("filters"))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_slow_obvious_mean(inner, shape) -> None:
    features = ResampledFeatures(inner, shape)
    ways = (slow_axis(n, m) for n, m in zip(shape, inner.shape[1:], strict=True))
    given = next(ways), inner.materialize(), next(ways)
    expected = np.einsum("rh,chw,kw->crk", *given, optimize=True)
    np.testing.assert_allclose(features.materialize(), expected, rtol=1e-4, atol=1e-4)
    rows, columns = np.indices(shape).reshape(2, -1)[:, ::7]
    np.testing.assert_allclose(
        features.sample(rows, columns),
        expected[:, rows, columns].T,
        rtol=1e-4,
        atol=1e-4,
    )
    weight = np.random.default_rng(1).normal(size=(3, len(expected))).astype(np.float32)
    bias = np.float32([0.5, 0, -2])
    planes = np.einsum("kc,crw->krw", weight, expected) + bias[:, None, None]
    found = features.project(weight, bias)
    np.testing.assert_allclose(found, planes, rtol=1e-3, atol=1e-3)
    region = slice(3, 17), slice(5, 50)
    np.testing.assert_array_equal(
        features.project(weight, bias, region=region), found[:, *region]
    )


def test_the_same_size_is_the_same(inner) -> None:
    same = ResampledFeatures(inner, inner.shape[1:])
    np.testing.assert_allclose(same.materialize(), inner.materialize(), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colors", [(), (3,)])
def test_an_image_keeps_type_and_mean(dtype, colors) -> None:
    image = np.full((31, 47, *colors), 77, dtype)
    for factors in ((0.5, 0.5), (2.0, 1.3)):
        found = resized(image, factors)
        assert found.dtype == dtype
        assert found.shape == (round(31 * factors[0]), round(47 * factors[1]), *colors)
        np.testing.assert_allclose(found, 77, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colors", [(), (3,)])
def test_an_image_keeps_its_grain(dtype, colors) -> None:
    rng = np.random.default_rng(4)
    grey = 120 + 30 * np.sin(np.arange(180) / 20) + rng.normal(0, 8, (150, 180))
    image = grey.astype(dtype)
    image = image if not colors else np.dstack([image] * 3)
    grain = grain_of(image)
    assert grain == pytest.approx(8 / grey.std(), rel=0.15)
    for factors in ((2.0, 2.0), (0.5, 0.5), (1.5, 0.7)):
        found = resized(image, factors)
        assert grain_of(found) == pytest.approx(grain, rel=0.15)
        np.testing.assert_array_equal(found, resized(image, factors))


@pytest.mark.parametrize("shape", [*SHAPES, (3, 90), (1, 9), (60, 71, 3)])
@pytest.mark.parametrize("factors", [(0.25, 0.25), (0.73, 1.7), (4.0, 2.2)])
def test_an_image_is_resized_window_by_window_as_scikit_image_does(
    shape, factors
) -> None:
    # The values are far apart as they have no noise that could be missing.
    image = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    found = ResizedImage(Lazy(image), resized_shape(shape, factors))
    found._noise[:] = 0
    wanted = resize(
        image, found.shape, order=1, mode="reflect", anti_aliasing=min(factors) < 1
    )
    whole = found[:, :]
    np.testing.assert_allclose(whole, wanted, atol=1e-5)
    window = (
        slice(found.shape[0] // 3, found.shape[0] // 3 + 9),
        slice(found.shape[1] // 4, found.shape[1] // 4 + 13),
    )
    np.testing.assert_allclose(found[window], whole[window], atol=1e-5)


@pytest.mark.parametrize("factors", [(0.5, 0.5), (2.0, 1.5)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_of_a_window_is_that_of_the_whole(kind, factors) -> None:
    image = KINDS[kind](micrograph(401, 533)[0])
    whole = resized(image, factors)
    assert np.isfinite(whole).all()
    parts = ResizedImage(Lazy(image), whole.shape)
    window = slice(13, 170), slice(101, 222)
    np.testing.assert_allclose(parts[window], whole[window], rtol=1e-5, atol=1e-5)


def test_each_channel_keeps_a_grain_of_its_own() -> None:
    rng, is_right = np.random.default_rng(4), np.indices((160, 180))[1] >= 90
    wave = 900 * np.sin(np.arange(180) / 20)
    bse = 30_000 + wave + rng.normal(0, 300, is_right.shape)
    channels = np.dstack([bse, np.where(is_right, 40, 10)]).astype(np.uint16)
    grain = grain_of(bse)
    for factors in ((0.5, 0.5), (2.0, 2.0)):
        shape = resized_shape(channels.shape, factors)
        found = ResizedImage(channels, shape, channels=True)[:, :]
        assert grain_of(found[..., 0]) == pytest.approx(grain, rel=0.15)
        assert found[..., 1].min() >= 10
        assert found[..., 1].max() <= 40
    noise = rng.normal(1000, 30, (160, 180, 2)).astype(np.float32)
    found = ResizedImage(noise, (80, 90), channels=True)[:, :]
    assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.1


def test_channels_are_told_apart_at_another_magnification() -> None:
    rng, truth = np.random.default_rng(4), 1 + (np.indices((96, 96))[1] >= 48)
    bse = rng.normal(30_000, 300, truth.shape)
    channels = np.dstack([bse, np.where(truth > 1, 40, 10)]).astype(np.uint16)
    scribbles = np.where(np.add(*np.indices(truth.shape)) % 40 < 3, truth, 0)
    backbone = load_backbone("filters")
    ranges = (28_000, 32_000), (0, 60)
    about = {"channels": "BSE,EDS", "value_range": ranges}
    first = np.moveaxis(channels, -1, 0)
    ways = [
        compute_resampled(channels, backbone, (0.5, 0.5), **about),
        compute_resampled(first, backbone, (0.5, 0.5), channel_axis=0, **about),
        block_features(Lazy(channels), backbone, pixel_ratio=(0.5, 0.5), **about),
    ]
    for features in ways:
        found = PixelClassifier().fit(features, scribbles).predict(features)
        assert (found == truth).mean() > 0.97
    again = pickle.loads(pickle.dumps(ways[2])).again(Lazy(channels), backbone)
    np.testing.assert_array_equal(again.materialize(), ways[2].materialize())


def test_a_tint_is_no_grain() -> None:
    wave = 1 + 0.2 * np.sin(np.arange(180) / 20)[:, None]
    grey = wave + np.random.default_rng(4).normal(0, 0.05, (150, 180, 1))
    image = (grey * (200, 110, 40)).astype(np.float32)
    for factors in ((0.5, 0.5), (2.0, 2.0)):
        found = resized(image, factors)
        assert grain_of(found) == pytest.approx(grain_of(image), rel=0.15)


@pytest.mark.parametrize("alpha", [255, "noise"])
def test_alpha_neither_makes_noise_nor_gets_any(alpha) -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(120, 20, (91, 80, 3)).astype(np.uint8)
    fourth = rng.integers(0, 255, image.shape[:2]) if alpha == "noise" else alpha
    both = np.dstack([image, np.broadcast_to(fourth, image.shape[:2])]).astype(np.uint8)
    for factors in ((0.5, 0.5), (2.0, 1.3)):
        np.testing.assert_array_equal(resized(both, factors), resized(image, factors))


def test_a_mask_stays_between_0_and_1() -> None:
    image = two_textures(96)[0] > 150
    for factors in ((0.5, 0.5), (2.0, 2.0)):
        found = resized(image, factors)
        assert found.mean() == pytest.approx(image.mean(), abs=0.02)
        assert 0 <= found.min() <= found.max() <= 1
    backbone = load_backbone("filters")
    (part,) = compute_resampled(image, backbone, (0.5, 0.5)).part_options
    assert part.value_range == (0, 1)


@pytest.mark.filterwarnings("ignore:overflow")  # of 64 bit, squared
@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.uint32, np.int32, np.int64, np.uint64]
)
def test_the_ends_of_integers_do_not_wrap_round(dtype) -> None:
    limits = np.iinfo(dtype)
    image = np.full((20, 20), limits.max, dtype)
    image[:, :10] = limits.min
    for factors in ((0.5, 0.5), (2.0, 2.0)):
        found = resized(image, factors).astype(float) / 2.0 ** (8 * image.itemsize)
        assert (np.diff(found, axis=1) >= 0).all()
        assert found[0, -1] - found[0, 0] > 0.99
    if image.itemsize == 4:
        fine = limits.max - np.arange(400).reshape(20, 20).astype(dtype)
        assert len(np.unique(resized(fine, (2.0, 2.0)))) > 300


@pytest.mark.parametrize("chunks", [None, ((8, 8, 5), (16, 13)), (8, 16)])
def test_chunks_are_known_or_not(chunks) -> None:
    lazy = Lazy(np.random.default_rng(1).integers(0, 255, (21, 29), np.uint8))
    whole = resized(lazy._array, (2.0, 2.0))
    lazy.chunks = chunks
    image = ResizedImage(lazy, (42, 58))
    assert image.chunks == ((1, 1) if chunks is None else (8, 16))
    np.testing.assert_array_equal(image[:, :], whole)


def test_what_is_read_of_an_enlarged_image_is_no_larger_than_a_chunk() -> None:
    lazy = Lazy(np.random.default_rng(1).integers(0, 255, (1300, 1100), np.uint8))
    lazy.chunks = 1300, 1100
    sizes = []

    class Watched(ResizedImage):
        def __getitem__(self, window):
            found = super().__getitem__(window)
            sizes.append(found.size)
            return found

    image = Watched(lazy, (2600, 2200))
    read_statistics(image, None, (), warn=False, tick=lambda done, total: None)
    assert max(sizes) <= 1300 * 1100
    assert sum(sizes) == 2600 * 2200


def test_regions_of_an_image_are_not_resized() -> None:
    image = np.random.default_rng(1).integers(0, 255, (64, 64), np.uint8)
    with pytest.raises(ValueError, match="partition: .*pixel_ratio"):
        compute_resampled(
            image, load_backbone("filters"), (0.5, 0.5), partition=image // 128
        )


@pytest.mark.parametrize(
    "ratio", [(2.0,), 2.0, (1, 2, 3), (0, 1), (-1, 1), (np.nan, 1)]
)
def test_what_is_no_pixel_ratio_is_refused(ratio) -> None:
    with pytest.raises(ValueError, match="pixel_ratio: .*two numbers above 0"):
        resampling_factors(ratio)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_grey_levels_below_zero_are_kept(dtype) -> None:
    found = resized(np.full((20, 20), -300, dtype), (0.5, 0.5))
    np.testing.assert_allclose(found, -300, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "shape", "ratio", "block"),
    [
        ("filters", "grey", (600, 413), (0.5, 0.5), 256),
        ("filters", "RGB", (211, 300), (2.0, 1.4), 256),
        ("filters", "holes", (300, 521), (0.7, 0.7), 256),
        ("embedded", "grey", (213, 300), (1.37, 1.37), 256),
        ("embedded", "16 bit", (521, 430), (0.7, 0.7), 256),
        ("embedded", "grey", (70, 111), (3.9, 3.9), 256),
        ("embedded", "grey", (901, 700), (0.26, 0.26), 256),
    ],
)
@pytest.mark.filterwarnings("ignore")  # not all have a range of their own
def test_blocks_give_the_labels_of_the_whole(name, kind, shape, ratio, block) -> None:
    plain, classes = micrograph(*shape)
    image, backbone = KINDS[kind](plain), load_backbone(name)
    labels = draw_scribbles(np.random.default_rng(1), classes, 5)
    whole = compute_resampled(image, backbone, ratio)
    blocks = block_features(Lazy(image), backbone, block=block, pixel_ratio=ratio)
    assert blocks.shape == (whole.shape[0], *shape)
    assert blocks.part_options == whole.part_options
    assert len(list(blocks.blocks())) > 1
    classifier = PixelClassifier().fit(whole, labels)
    wanted = classifier.predict(whole)
    found = np.zeros_like(wanted)
    for region in blocks.blocks():
        found[region] = classifier.predict(blocks, region=region)
    assert (found == wanted).mean() >= 0.999
    if len(list(blocks.blocks())) <= 16:  # else it has another background sample
        again = PixelClassifier().fit(blocks, labels)
        assert (again.predict(whole) == wanted).mean() >= 0.999
    elsewhere = pickle.loads(pickle.dumps(blocks)).again(Lazy(image), backbone)
    region = slice(40, 90), slice(30, 160)
    np.testing.assert_array_equal(
        classifier.predict(elsewhere, region=region), found[region]
    )


def test_blocks_of_a_transformer_are_as_near_as_without_resizing(backbones) -> None:
    plain, classes = micrograph(385, 1000)
    image, backbone = KINDS["grey"](plain), backbones["vit"]
    labels = draw_scribbles(np.random.default_rng(1), classes, 5)
    seen = resized(image, (1.3, 1.3))
    apart = [
        (classifier.predict(blocks) != classifier.predict(whole)).mean()
        for whole, blocks in (
            (
                compute_resampled(image, backbone, (1.3, 1.3)),
                block_features(image, backbone, block=448, pixel_ratio=(1.3, 1.3)),
            ),
            (
                ResampledFeatures(compute_features(seen, backbone), image.shape),
                ResampledFeatures(
                    block_features(seen, backbone, block=448), image.shape
                ),
            ),
        )
        for classifier in [PixelClassifier().fit(whole, labels)]
    ]
    assert apart[0] < apart[1] + 0.02


def test_an_image_without_values_has_no_grain() -> None:
    for image in (np.full((9, 9), np.nan), np.ones((9, 9)), np.ones((2, 9))):
        assert grain_of(image) == 0
    noise = np.random.default_rng(0).normal(size=(80, 90))
    holes = np.where(noise > 2, np.nan, noise)
    assert grain_of(holes) == pytest.approx(grain_of(noise), rel=0.2)


def test_what_is_alike_or_hopeless_is_left() -> None:
    assert resampling_factors(None) is None
    assert resampling_factors((1.04, 1 / 1.04)) is None
    assert resampling_factors((1.0, 4.1)) is None
    assert resampling_factors((0.25, 1.0)) == (0.25, 1.0)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_structures_are_found_at_another_magnification(factor: float) -> None:
    image, truth = two_textures(192)
    scribbles = np.where(np.add(*np.indices(truth.shape)) % 40 < 3, truth, 0)
    backbone = load_backbone("filters")
    classifier = PixelClassifier().fit(compute_features(image, backbone), scribbles)
    seen = resized(image, (factor, factor))
    shape = seen.shape
    rows, columns = (((np.arange(n) + 0.5) / factor).astype(int) for n in shape)
    known = truth[np.ix_(rows, columns)]
    back = compute_features(resized(seen, (1 / factor, 1 / factor)), backbone)
    score = mean_iou(known, classifier.predict(ResampledFeatures(back, shape)), (1, 2))
    as_it_is = mean_iou(
        known, classifier.predict(compute_features(seen, backbone)), (1, 2)
    )
    own = mean_iou(truth, classifier.predict(compute_features(image, backbone)), (1, 2))
    assert score > own - 0.03
    assert score > as_it_is + 0.05
