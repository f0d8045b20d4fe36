"""A part of the segmentation equals that part of the whole, bit for bit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from napari_hrdv2 import Cancelled, HighResFeatures, PixelClassifier
from napari_hrdv2.core.features import tiles as pixel_tiles
from napari_hrdv2.core.features.base import JoinedFeatures
from napari_hrdv2.core.features.superpixels import SuperpixelFeatures
from napari_hrdv2.core.features.transforms import parse_transforms
from napari_hrdv2.core.features.upsampling import separable as spread
from napari_hrdv2.core.features.upsampling.separable import padded_length

RNG = np.random.default_rng(0)
SHAPE = (83, 121)
REGIONS = [
    np.s_[0:83, 0:121],
    np.s_[:1, :1],
    np.s_[82:, 120:],
    np.s_[20:41, 60:64],
    np.s_[-30:, 40:100],
    np.s_[30:31, :],
    np.s_[40:40, 3:9],
]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Several tiles, strips and bands, and projections of a few tokens each."""
    for module in (pixel_tiles, spread):
        monkeypatch.setattr(module, "ROWS_PER_TILE", 16)
    monkeypatch.setattr(pixel_tiles, "COLUMNS_PER_TILE", 40)
    monkeypatch.setattr(spread, "COLUMNS_PER_BAND", 24)
    monkeypatch.setattr(spread, "TOKENS_PER_STRIP", 6)
    monkeypatch.setattr(pixel_tiles, "TOKEN_COLUMNS_PER_TILE", 8)
    monkeypatch.setattr(pixel_tiles, "TOKEN_TILE_BYTES", 4 * 7 * 24)


def features_of(
    transforms="identity", patch_size=6, stride=6, dtype=torch.float16, **options
):
    grid = [
        1 + (padded_length(n, patch_size, stride) - patch_size) // stride for n in SHAPE
    ]
    count = len(parse_transforms(transforms, stride).shifts())
    tokens = torch.from_numpy(RNG.standard_normal((count, *grid, 7))).to(dtype)
    return HighResFeatures(tokens, transforms, SHAPE, patch_size, stride, **options)


def superpixels():
    tokens = [torch.from_numpy(RNG.random((60, 7), np.float32)) for _ in range(5)]
    maps = [torch.from_numpy(RNG.integers(0, 60, SHAPE)) for _ in range(5)]
    return SuperpixelFeatures(tokens, maps, parse_transforms("shift:9:neumann", 16))


GUIDE = RNG.random(SHAPE, np.float32)
KINDS = {
    "one map": features_of,
    "shifts": lambda: features_of("shift:1,2"),
    "shifts that wrap": lambda: features_of("shift:5,30"),
    "reflecting": lambda: features_of("shift:1,30", boundary="reflect"),
    "lattice": lambda: features_of("lattice:3", 7, 4, torch.float32),
    "bicubic": lambda: features_of("shift:2", 8, 5, interpolation="bicubic"),
    "nearest": lambda: features_of("shift:2", interpolation="nearest"),
    "half the resolution": lambda: features_of("identity", 2, 2),
    "interleaved": lambda: features_of("lattice:2", interpolation="interleaved"),
    "bilateral": lambda: features_of("lattice:2", interpolation="bilateral+1",
                                     guide=GUIDE),
    "pixels": lambda: features_of("identity", 1, 1),
    "joined": lambda: JoinedFeatures(
        [features_of("shift:1"), features_of("identity", 1, 1), superpixels()]
    ),
    "superpixels": superpixels,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 4])
def test_a_region_is_that_part_of_the_whole_bit_for_bit(kind, classes):
    features = KINDS[kind]()
    weight = RNG.standard_normal((classes, features.shape[0]))
    bias = RNG.standard_normal(classes)
    planes, labels = features.project(weight, bias), features.argmax(weight, bias)
    shares = features.project(weight, bias, softmax=True)
    for region in REGIONS:
        part = features.project(weight, bias, region=region)
        assert np.array_equal(part, planes[:, *region])
        assert np.array_equal(
            features.argmax(weight, bias, region=region), labels[region]
        )
        part = features.project(weight, bias, region=region, softmax=True)
        assert np.array_equal(part, shares[:, *region])


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_the_whole_make_the_dense_map(kind):
    features = KINDS[kind]()
    weight, bias = RNG.standard_normal((3, features.shape[0])), np.zeros(3)
    dense = np.einsum("kc,chw->khw", weight, features.materialize())
    np.testing.assert_allclose(features.project(weight, bias), dense, atol=1e-4)


@pytest.mark.parametrize("kind", ["one map", "shifts", "bilateral", "pixels"])
def test_a_region_projects_few_tokens(kind, monkeypatch):
    features = KINDS[kind]()
    read = []
    real = pixel_tiles._in_float32

    def counted(tile, space):
        read.append(tile.shape[0] * tile.shape[1])
        return real(tile, space)

    monkeypatch.setattr(pixel_tiles, "_in_float32", counted)
    weight, bias = np.eye(7)[:2], np.zeros(2)
    features.argmax(weight, bias)
    whole = sum(read)
    read.clear()
    features.argmax(weight, bias, region=np.s_[40:50, 70:80])
    assert 0 < sum(read) < 0.25 * whole


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_is_asked_for_between_blocks(kind):
    features = KINDS[kind]()
    weight, bias = np.eye(features.shape[0])[:3], np.zeros(3)
    asked = []

    def should_stop():
        asked.append(len(asked))
        return False

    features.argmax(weight, bias, should_stop=should_stop)
    many = len(asked)
    assert many >= 6
    asked.clear()

    def stops_at_last():
        asked.append(len(asked))
        return len(asked) == many

    project = features.project
    for read in (features.argmax, project, partial(project, softmax=True)):
        asked.clear()
        with pytest.raises(Cancelled):
            read(weight, bias, should_stop=stops_at_last)


def test_a_classifier_predicts_regions_and_stops():
    features = KINDS["shifts"]()
    labels = np.zeros(SHAPE, int)
    labels[5, 5:40], labels[60, 50:90] = 3, 8
    classifier = PixelClassifier().fit(features, labels)
    region = np.s_[50:70, 20:60]
    assert np.array_equal(
        classifier.predict(features, region=region),
        classifier.predict(features)[region],
    )
    shares = classifier.predict_proba(features, region=region)
    assert np.array_equal(shares, classifier.predict_proba(features)[:, *region])
    for read in (classifier.predict, classifier.predict_proba):
        with pytest.raises(Cancelled):
            read(features, should_stop=lambda: True)


def test_regions_that_are_none_are_refused():
    features = features_of()
    for region in [(slice(0, 3), 4), slice(0, 3), (slice(3),) * 3]:
        with pytest.raises(TypeError, match=r"region: .* is not \(rows, columns\)"):
            features.argmax(np.eye(7), np.zeros(7), region=region)
    with pytest.raises(ValueError, match="region: .* has a step"):
        features.argmax(np.eye(7), np.zeros(7), region=np.s_[::2, :])


def test_two_threads_may_begin_with_the_same_features():
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 8)).astype("f4"), np.zeros(3, "f4")
    tokens = rng.normal(size=(9, 20, 20, 8)).astype("f4")
    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            features = HighResFeatures(tokens, "shift:1", (280, 280), 14, 14)
            both = [threads.submit(features.argmax, weight, bias) for _ in range(2)]
            np.testing.assert_array_equal(*(one.result() for one in both))
