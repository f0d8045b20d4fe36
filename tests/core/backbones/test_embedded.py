"""The embedded backbone: any size, tiles as the whole, brightness without effect."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from micrographs import draw_scribbles, random_micrograph
from napari_hrdv2 import (
    HighResFeatures,
    PixelClassifier,
    compute_features,
    load_backbone,
)
from napari_hrdv2.core.backbones import sources_of
from napari_hrdv2.core.backbones.embedded import network as network_file
from napari_hrdv2.core.backbones.embedded.backbone import EmbeddedBackbone, standardised
from napari_hrdv2.core.backbones.embedded.network import BUNDLED, ConvNet, ConvNetConfig
from napari_hrdv2.core.backbones.filters import filter_planes
from napari_hrdv2.core.classifier.background import PLAIN_WHITENING, PCACoordinates
from napari_hrdv2.core.classifier.fitting import fit_with_self_training
from napari_hrdv2.core.errors import Cancelled, WeightsError
from napari_hrdv2.core.features.base import JoinedFeatures
from napari_hrdv2.core.measure.scores import mean_iou
from small_networks import adapted_embedded

LEARNED = ConvNetConfig().channels


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("embedded", device="cpu", precision="float32")


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 2), (3, 50), (97, 64), (64, 64, 3), (33, 35, 3)])
@pytest.mark.parametrize("transforms", ["auto", "shift:1*flip"])
def test_any_size_grey_or_colour(backbone, shape, transforms) -> None:
    image = noise(*shape).numpy()
    features = compute_features(image, backbone, transforms)
    channels = 2 * backbone.channels_for(1 if image.ndim == 2 else 3)
    assert features.shape == (channels, *shape[:2])
    dense = features.materialize()
    assert np.isfinite(dense).all()
    rows, columns = np.mgrid[: shape[0], : shape[1]].reshape(2, -1)
    sampled = features.sample(rows, columns).T.reshape(dense.shape)
    np.testing.assert_allclose(sampled, dense, atol=1e-5)


@pytest.mark.parametrize("image_channels", [1, 3])
def test_each_scale_has_its_channels(backbone, image_channels) -> None:
    image = noise(1, image_channels, 40, 64)
    outputs = backbone.network.config.outputs
    pixels = standardised(image).expand(-1, 3, -1, -1)
    tokens = backbone.tokens(image, stride=2)[0].float()
    for scale in range(backbone.network.config.scales):
        small = torch.nn.functional.avg_pool2d(pixels, 1 << scale)
        with torch.no_grad():
            grid = backbone.network(small)
        large = torch.nn.functional.interpolate(grid, size=(20, 32), mode="bilinear")
        found = tokens[..., scale * outputs : (scale + 1) * outputs].movedim(-1, 0)
        torch.testing.assert_close(found, large[0], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("shape", [(62, 900), (900, 62)])
def test_tiles_equal_the_whole(backbone, monkeypatch, shape) -> None:
    image = noise(1, 1, *shape)
    image[..., shape[0] // 2 :, shape[1] // 2 :] += 3  # an edge to be seen from afar
    whole = backbone.tokens(image, stride=2)
    monkeypatch.setattr(network_file, "TILE", 32)
    tiled = backbone.tokens(image, stride=2)
    torch.testing.assert_close(tiled, whole, atol=1e-3, rtol=1e-3)
    monkeypatch.setattr(network_file, "HALO", 16)  # too little
    assert not torch.allclose(
        backbone.tokens(image, stride=2), whole, atol=1e-2, rtol=1e-2
    )


def test_a_tile_sees_as_far_as_the_network_looks() -> None:
    network = ConvNet(ConvNetConfig(2, (2, 2, 2, 2, 2), 2, 1)).eval()
    for parameter in network.parameters():
        parameter.data.abs_()  # so that nothing cancels and no ReLU is closed
    image = torch.ones(1, 3, 1536, 1536)
    image.requires_grad_(True)
    network(image)[..., 384, 384].sum().backward()
    rows, columns = image.grad.abs().sum((0, 1)).nonzero().unbind(1)
    reach = max(768 - int(rows.min()), int(rows.max()) - 769)
    reach = max(reach, 768 - int(columns.min()), int(columns.max()) - 769)
    assert 200 < reach <= network_file.HALO * 2


def test_patches_that_overlap(backbone) -> None:
    image = noise(1, 1, 40, 52)
    fine = backbone.tokens(image, stride=1)
    assert fine.shape[1:3] == (39, 51)
    coarse = backbone.tokens(image, stride=2)
    torch.testing.assert_close(fine[:, ::2, ::2], coarse)


def test_brightness_and_contrast_do_not_matter(backbone) -> None:
    image = noise(1, 1, 64, 96)
    before = backbone.tokens(image, stride=2).float()
    after = backbone.tokens(0.3 * image + 0.6, stride=2).float()
    spread = before.flatten(0, 2).std(0).clamp_min(1e-3)
    worst = ((after - before).abs() / spread).flatten(0, 2).mean(0).max()
    assert worst < 0.01  # of every channel


def test_the_same_image_gives_the_same_features(backbone) -> None:
    image = noise(1, 3, 130, 70)
    again = EmbeddedBackbone().tokens(image, stride=2)
    assert torch.equal(backbone.tokens(image, stride=2), again)


def test_the_filter_bank_is_part_of_it(backbone) -> None:
    image = noise(1, 1, 20, 30)
    tokens = backbone.tokens(image, stride=2)[0, ..., LEARNED:].float()
    level = (image - image.mean()) / image.std(correction=0)
    planes = filter_planes(0.5 + level / 5, torch.float32)[0]
    expected = planes.unfold(1, 2, 2).unfold(2, 2, 2).mean((-1, -2)).movedim(0, -1)
    torch.testing.assert_close(tokens, expected, atol=2e-3, rtol=1e-3)


def test_what_training_trusts_reaches_the_classifier(backbone) -> None:
    entry = random_micrograph(3, 64, color=False)
    features = compute_features(entry.image, backbone)
    assert features.channel_weights.shape == (features.shape[0],)
    more = HighResFeatures(torch.ones(1, 32, 32, 5), "identity", (64, 64), 2, 2)
    both = JoinedFeatures([features, more])
    assert both.channel_weights[-5:].tolist() == [1] * 5
    torch.testing.assert_close(both.channel_weights[:-5], features.channel_weights)
    drawn = draw_scribbles(np.random.default_rng(0), entry.labels, 2)
    options = {"balanced": False, "self_training": False, "by_place": False}
    found = PixelClassifier(**options).fit(features, drawn)
    there = np.nonzero(drawn)
    background = torch.from_numpy(features.samples.background(2000))
    # test_background.py says what that does.
    coordinates = PCACoordinates.of(background, features.channel_weights)
    expected = fit_with_self_training(
        coordinates(torch.from_numpy(features.sample(*there))),
        drawn[there].astype(np.int64) - 1,
        coordinates=coordinates,
        regularisation=found.C,
        whitening=PLAIN_WHITENING,
        sample_weight=np.ones(len(there[0]), np.float32),
        tolerance=found.tolerance,
    ).result
    np.testing.assert_allclose(found.weight, expected.weight, rtol=0.02, atol=1e-4)


def test_progress_and_cancel(backbone) -> None:
    image = noise(60, 60).numpy()
    seen = []
    compute_features(
        image, backbone, "flip", progress=lambda *counts: seen.append(counts)
    )
    assert seen[-1] == (4 * backbone.steps, 4 * backbone.steps)
    with pytest.raises(Cancelled):
        compute_features(image, backbone, should_stop=lambda: True)


def test_it_is_small_and_is_the_default() -> None:
    from napari_hrdv2.core.backbones import (
        backbone_info,
        backbone_names,
        backbone_state,
    )

    assert BUNDLED.stat().st_size < 8e6
    assert backbone_names()[0] == "embedded"
    assert backbone_state("embedded") == "ready"
    assert backbone_info("embedded").download_bytes == 0


def test_another_file_of_weights(tmp_path, backbone) -> None:
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(BUNDLED.read_bytes())
    assert load_backbone("embedded", copy).weights_hash == backbone.weights_hash
    assert load_backbone("embedded", "random").weights_hash != backbone.weights_hash
    copy.write_bytes(BUNDLED.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"mine\.safetensors is not a file of the"):
        load_backbone("embedded", copy)
    with pytest.raises(WeightsError, match="is not a file of the embedded backbone"):
        load_backbone("embedded", tmp_path / "none.safetensors")


@pytest.fixture
def trained_elsewhere(tmp_path):
    """A file of the embedded backbone with other numbers in it, in a folder."""
    (tmp_path / "folder").mkdir()
    return adapted_embedded(tmp_path / "folder" / "adapted.safetensors")


@pytest.mark.parametrize("name", ["dinov2-small+embedded", "embedded+filters"])
def test_a_file_goes_to_the_part_that_it_is_of(name, trained_elsewhere, tmp_path):
    sources = sources_of(name, trained_elsewhere)
    assert sources.pop("embedded") == trained_elsewhere
    assert list(sources.values()) == [None]
    other = tmp_path / "vit.safetensors"
    save_file({"x": torch.ones(2)}, other)
    taker = "dinov2-small" if "dinov2" in name else "embedded"
    assert [n for n, x in sources_of(name, other).items() if x] == [taker]


def test_a_folder_holds_a_file_of_the_embedded_backbone(trained_elsewhere, backbone):
    one = load_backbone("embedded", trained_elsewhere.parent)
    assert one.weights_hash == load_backbone("embedded", trained_elsewhere).weights_hash
    both = load_backbone("embedded+filters", trained_elsewhere)
    assert both.parts[0].weights_hash == one.weights_hash != backbone.weights_hash
    assert not torch.equal(one.channel_weights_for(1), backbone.channel_weights_for(1))


def test_strokes_go_further_than_with_the_filter_bank_alone(backbone) -> None:
    gains = []
    for seed in range(6):
        entry = random_micrograph((1 << 62) + 1000 + seed, 192)
        drawn = draw_scribbles(np.random.default_rng(seed), entry.labels, 2)
        classes = list(range(1, int(entry.labels.max()) + 1))
        scores = []
        for one in (backbone, load_backbone("filters", device="cpu")):
            features = compute_features(entry.image, one)
            found = PixelClassifier().fit(features, drawn).predict(features)
            unseen = drawn == 0
            scores.append(mean_iou(entry.labels[unseen], found[unseen], classes))
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 0
