import numpy as np
import pytest

from napari_hrdv2.core.guidance.attention import divides_into_regions, shows_attention
from napari_hrdv2.session import compute
from small_networks import load_small

PARTITION = np.arange(40)[:, None] // 8 * 6 + np.arange(48) // 8


@pytest.fixture
def small(monkeypatch):
    """Networks of the registry's names, with little in them."""
    monkeypatch.setattr("napari_hrdv2.core.backbones.load_backbone", load_small)


@pytest.fixture
def vit(session, small):
    session.configure(backbone="dino-small-16", transforms="identity")
    return session


@pytest.fixture
def spit(session, small):
    session.configure(backbone="spit-small", transforms="identity")
    return session


@pytest.mark.parametrize(
    ("name", "attention", "regions"),
    [
        ("embedded", False, False),
        ("filters", False, False),
        ("dino-small-16@k9", True, False),
        ("spit-base", True, True),
        ("dinov2-small+spit-small", True, True),
        ("facebook/some-model", False, False),
    ],
)
def test_what_a_backbone_shows_is_known_from_its_name(name, attention, regions):
    assert shows_attention(name) is attention
    assert divides_into_regions(name) is regions


def test_without_an_image_everything_says_so(small):
    from napari_hrdv2.session import Session

    inspection = Session().inspection
    for reason in (
        inspection.why_no_attention(),
        inspection.why_no_regions(),
        inspection.why_no_partition(),
    ):
        assert reason == "open an image first"
    with pytest.raises(ValueError, match="attention: open an image first"):
        inspection.attention_request()


def test_a_filter_bank_has_no_attention_and_no_regions(session):
    session.configure(backbone="filters")
    assert "no class token" in session.inspection.why_no_attention()
    assert "square patches" in session.inspection.why_no_regions()
    assert "spit-small" in session.inspection.why_no_partition()
    with pytest.raises(ValueError, match="partition: filters sees square patches"):
        session.inspection.use_partition(PARTITION)


def test_attention_waits_for_a_backbone_that_is_in_memory(vit):
    assert "compute features" in vit.inspection.why_no_attention()
    vit.compute_features()
    assert not vit.inspection.why_no_attention()
    vit.configure(backbone="dino-base-16")
    assert "compute features" in vit.inspection.why_no_attention()


def test_attention_has_a_map_for_each_head(vit):
    vit.compute_features()
    told = []
    answer = compute(
        vit.inspection.attention_request(), progress=lambda *a: told.append(a)
    )
    assert answer.maps.shape == (2, 40, 48)
    assert answer.backbone == "dino-small-16"
    assert told[-1][0] == "Attention"
    assert told[-1][1] == told[-1][2] > 0


def test_attention_has_a_foreground_outside_of_the_exclusion_mask(vit):
    mask = np.zeros((40, 48), bool)
    mask[:12] = True
    vit.set_exclusion(mask)
    vit.compute_features()
    answer = compute(vit.inspection.attention_request())
    assert answer.foreground.shape == (40, 48)
    assert not answer.foreground[mask].any()
    total = answer.maps.sum(0)
    high, low = (
        total[~mask & side] for side in (answer.foreground, ~answer.foreground)
    )
    assert high.mean() > low.mean()
    vit.images.current.set_features(None, None)
    assert compute(vit.inspection.attention_request()).foreground is None


def test_attention_takes_images_with_missing_pixels(vit):
    image = np.random.default_rng(5).random((40, 48)).astype(np.float32)
    image[3:5, 7:9] = np.nan
    vit.set_image(image, "missing")
    vit.compute_features()
    maps = compute(vit.inspection.attention_request()).maps
    assert np.isfinite(maps).all()


def test_attention_can_be_cancelled(vit):
    from napari_hrdv2.core.errors import Cancelled

    vit.compute_features()
    with pytest.raises(Cancelled):
        compute(vit.inspection.attention_request(), should_stop=lambda: True)


def test_attention_of_a_network_of_regions_is_one_map_constant_in_each(spit):
    spit.compute_features()
    spit.inspection.use_partition(PARTITION, "squares")
    spit.compute_features()
    maps = compute(spit.inspection.attention_request()).maps
    assert maps.shape == (1, 40, 48)
    for region in np.unique(PARTITION):
        assert np.unique(maps[0][region == PARTITION]).size == 1
    assert maps.max() == 1


def test_the_regions_shown_are_those_of_the_features(spit):
    assert spit.inspection.why_no_regions() == "compute features first"
    spit.compute_features()
    found = compute(spit.inspection.regions_request())
    assert found.count == len(np.unique(found.labels))
    one_step_down = found.labels[1:] != found.labels[:-1]
    assert (found.borders[1:] | found.borders[:-1])[one_step_down].all()


def test_given_regions_become_the_regions_of_the_features(spit):
    spit.compute_features()
    assert spit.inspection.use_partition(PARTITION, "squares")
    spit.compute_features()
    found = compute(spit.inspection.regions_request())
    np.testing.assert_array_equal(found.labels - 1, PARTITION)
    assert spit.current.partition.name == "squares"


def test_features_of_other_regions_go_with_their_result(spit, labels):
    spit.set_scribbles(labels)
    spit.compute_features()
    spit.train()
    heard = []
    spit.features_changed.connect(lambda: heard.append(spit.features))
    assert spit.inspection.use_partition(PARTITION)
    assert spit.features is None
    assert spit.segmentation is None
    assert heard == [None]


def test_the_same_regions_again_change_nothing(spit):
    spit.inspection.use_partition(PARTITION)
    spit.compute_features()
    features = spit.features
    assert not spit.inspection.use_partition(PARTITION.copy())
    assert spit.features is features
    assert spit.inspection.use_partition(None)
    assert not spit.inspection.use_partition(None)


def test_an_answer_with_the_former_regions_comes_too_late(spit):
    request = spit.feature_request()
    spit.inspection.use_partition(PARTITION)
    assert not spit.accept(compute(request))
    assert spit.features is None


def test_given_regions_do_not_change_when_the_layer_does(spit):
    mine = PARTITION.copy()
    spit.inspection.use_partition(mine)
    mine[:] = 0
    assert spit.current.partition.labels.max() == PARTITION.max()


def test_a_backbone_of_patches_ignores_given_regions(spit):
    spit.inspection.use_partition(PARTITION)
    spit.configure(backbone="dino-small-16")
    assert spit.feature_request().partition is None
    spit.compute_features()
    assert spit.features.shape == (32, 40, 48)


@pytest.mark.parametrize(
    "labels", [PARTITION[:-1], PARTITION.astype(float), np.zeros((0, 0), int)]
)
def test_regions_that_do_not_fit_are_refused(spit, labels):
    with pytest.raises(ValueError, match=r"partition: .* whole numbers of shape"):
        spit.inspection.use_partition(labels)
    assert spit.current.partition is None


def test_a_name_that_leads_to_no_weights_is_told(session, monkeypatch, tmp_path):
    session.configure(backbone="dino-small-16")
    assert session.inspection.why_no_upsampler() == ""
    session.configure(interpolation="jbu")
    monkeypatch.setenv("NAPARI_HRDV2_FEATUP", str(tmp_path / "gone.ckpt"))
    assert "gone.ckpt" in session.inspection.why_no_upsampler()


def test_missing_or_too_many_weights_of_featup_are_told(session, monkeypatch, tmp_path):
    session.configure(backbone="dino-small-16", interpolation="jbu")
    monkeypatch.delenv("NAPARI_HRDV2_FEATUP", raising=False)
    monkeypatch.setattr(
        "napari_hrdv2.core.features.upsampling.featup._folders", lambda: [tmp_path]
    )
    assert f"put it into {tmp_path}" in session.inspection.why_no_upsampler()
    (tmp_path / "dino16_jbu_stack_cocostuff.ckpt").touch()
    assert session.inspection.why_no_upsampler() == ""
    (tmp_path / "dinov2_jbu_stack_cocostuff.ckpt").touch()
    assert "name the one to use" in session.inspection.why_no_upsampler()
