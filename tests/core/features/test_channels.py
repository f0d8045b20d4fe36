"""Channels of one image: each through the backbone by itself, features joined."""

from __future__ import annotations

import numpy as np
import pytest

from napari_hrdv2 import PixelClassifier, compute_features
from napari_hrdv2.core.backbones import load_backbone
from napari_hrdv2.core.features.blocks import block_features
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure.scores import mean_iou

pytestmark = pytest.mark.filterwarnings("ignore:uint16 grey levels")

BACKBONES = ["filters", "embedded", "dinov2-small"]


def loaded(name: str):
    return load_backbone(name, weights="random" if name.startswith("dino") else None)


def stack(height: int, width: int) -> np.ndarray:
    """Two channels whose grey levels have nothing in common, (H, W, 2) uint16."""
    rng = np.random.default_rng(3)
    bse = rng.normal(120, 20, (height, width)).clip(0, 255)
    counts = rng.poisson(3, (height, width)) * 700
    return np.stack([bse, counts], axis=-1).astype(np.uint16)


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_those_of_each_channel_alone_side_by_side(name: str) -> None:
    image, backbone = stack(61, 75), loaded(name)
    joined = compute_features(image, backbone, "identity", channels="BSE,Fe")
    alone = [compute_features(image[..., i], backbone, "identity") for i in (0, 1)]
    expected = np.concatenate([one.materialize() for one in alone])
    np.testing.assert_array_equal(joined.materialize(), expected)
    assert [part.channel for part in joined.part_options] == ["BSE", "Fe"]
    first = np.moveaxis(image, -1, 0)
    other = compute_features(
        first, backbone, "identity", channels="BSE,Fe", channel_axis=0
    )
    np.testing.assert_array_equal(other.materialize(), expected)


@pytest.mark.parametrize("name", ["filters", "embedded+filters"])
def test_channels_by_blocks_are_those_of_the_whole(name: str) -> None:
    image, backbone = stack(300, 530), loaded(name)
    whole = compute_features(image, backbone, channels="BSE,Fe")
    blocks = block_features(image, backbone, channels="BSE,Fe", block=256)
    assert blocks.part_options == whole.part_options
    rows, columns = np.divmod(np.arange(0, 300 * 530, 997), 530)
    np.testing.assert_allclose(
        blocks.sample(rows, columns), whole.sample(rows, columns), atol=2e-3, rtol=2e-2
    )


def three_phases(size: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Phases of which each channel shows two alike, (H, W, 2), and their ids."""
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(np.arange(size * size).reshape(size, size), size)
    truth = 1 + (rows // 20 + columns // 20) % 3
    grey = np.array([0, 90, 90, 160])[truth]  # 1 against 2 and 3
    iron = np.array([0, 60, 130, 60])[truth]  # 2 against 1 and 3
    noise = rng.normal(0, 12, (size, size, 2))
    image = np.stack([grey, iron], axis=-1) + noise
    return image.clip(0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("name", ["filters", "embedded"])
def test_two_channels_separate_what_neither_does_alone(name: str) -> None:
    image, truth = three_phases()
    labels = np.zeros_like(truth)
    labels[::40, :60] = truth[::40, :60]
    backbone = loaded(name)

    def miou(part: np.ndarray, channels: str) -> float:
        features = compute_features(part, backbone, channels=channels)
        found = PixelClassifier().fit(features, labels).predict(features)
        return mean_iou(truth, found, [1, 2, 3])

    together = miou(image, "BSE,Fe")
    alone = [miou(image[..., i], "") for i in (0, 1)]
    assert together > 0.9
    assert max(alone) < together - 0.2


def test_a_classifier_keeps_its_channels_and_refuses_others(tmp_path) -> None:
    image, truth = three_phases(96)
    labels = np.zeros_like(truth)
    labels[8:12] = truth[8:12]
    features = compute_features(image, loaded("filters"), channels="BSE,Fe")
    path = tmp_path / "two.safetensors"
    PixelClassifier().fit(features, labels).save(path)
    classifier = PixelClassifier.load(path)
    options = FeatureOptions.of(classifier.part_options)
    assert (options.backbone, options.channels) == ("filters", "BSE,Fe")
    turned = compute_features(image[..., ::-1], loaded("filters"), channels="Fe,BSE")
    with pytest.raises(ValueError, match="trained on the channels BSE, Fe, and these"):
        classifier.predict(turned)
    grey = compute_features(image[..., 0], loaded("filters"))
    with pytest.raises(ValueError, match="and these are of none"):
        classifier.predict(grey)


def test_a_range_for_each_channel_comes_back_from_the_classifier() -> None:
    image = stack(40, 44)
    ranges = ((0.0, 255.0), (0.0, 9000.0))
    features = compute_features(
        image, loaded("dinov2-small"), "identity", channels="a,b", value_range=ranges
    )
    options = FeatureOptions.of(features.part_options)
    assert options.value_range == ranges
    assert options.ranges == ranges


@pytest.mark.parametrize("channels", ["BSE", "BSE,Fe,Si", "BSE,BSE"])
def test_names_that_do_not_fit_are_refused(channels: str) -> None:
    with pytest.raises(ValueError, match="channels: BSE.* do not fit an image of"):
        compute_features(stack(40, 44), loaded("filters"), channels=channels)


def test_the_cost_is_that_of_all_channels() -> None:
    one = estimate_cost((500, 500), FeatureOptions("filters"))
    two = estimate_cost((500, 500, 2), FeatureOptions("filters", channels="BSE,Fe"))
    assert (two.passes, two.kept_bytes) == (2 * one.passes, 2 * one.kept_bytes)


def test_levels_are_one_pair_or_one_for_each_channel() -> None:
    image = np.random.default_rng(0).random((40, 50, 2))
    embedded, pairs = load_backbone("embedded"), ((0.4, 0.2), (0.5, 0.3))
    both = compute_features(image, embedded, channels="A,B", levels=pairs)
    alone = [
        compute_features(image[..., i], embedded, levels=pairs[i]).materialize()
        for i in (0, 1)
    ]
    np.testing.assert_array_equal(both.materialize(), np.concatenate(alone))
    assert [part.levels for part in both.part_options] == [*pairs]
    for wrong in (pairs[:1], pairs[::-1] + pairs):
        with pytest.raises(ValueError, match=f"levels: .*{len(wrong)} for 2 channels"):
            compute_features(image, embedded, channels="A,B", levels=wrong)
        with pytest.raises(ValueError, match="value_range: .* for 2 channels"):
            compute_features(image, embedded, channels="A,B", value_range=wrong)
    with pytest.raises(ValueError, match="is no mean and deviation"):
        compute_features(image, embedded, channels="A,B", levels=((1, 2), (1, 0)))
