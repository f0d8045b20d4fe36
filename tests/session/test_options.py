from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.core import devices
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.blocks import block_features
from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.core.features.options import (
    FeatureOptions,
    PartOptions,
    parse_stride,
)
from napari_hrdv2.core.features.upsampling import INTERPOLATIONS
from napari_hrdv2.core.features.upsampling.sharpening import parse_interpolation
from napari_hrdv2.session import Session, bytes_text, compute
from napari_hrdv2.session.classifier import options_for


def test_a_misspelt_transform_set_changes_nothing(session):
    with pytest.raises(ValueError, match="'shfit:1' in 'shfit:1' is not understood"):
        session.configure(transforms="shfit:1")
    assert session.options.transforms == "auto"


def test_an_unknown_backbone_changes_nothing(session):
    with pytest.raises(ValueError, match="nonsense"):
        session.configure(backbone="nonsense")
    assert session.options.backbone == "embedded"


@pytest.mark.parametrize(
    ("choice", "pixels"), [("auto", None), ("patch", 14), ("half", 7), ("5", 5)]
)
def test_strides_are_told_in_patches_or_pixels(choice, pixels):
    backbone = "dinov2-small+filters"
    assert parse_stride(choice, backbone) == pixels
    FeatureOptions(backbone, stride=pixels).check()


@pytest.mark.parametrize("choice", ["0", "15", "fine"])
def test_a_stride_that_does_not_fit_is_refused(choice):
    with pytest.raises(ValueError, match="stride: .* or 1 to 14 pixels"):
        stride = parse_stride(choice, "dinov2-small")
        FeatureOptions("dinov2-small", stride=stride).check()


def test_a_stride_of_one_patch_is_no_difference():
    made = FeatureOptions("dinov2-small", stride=14)
    assert made.difference(FeatureOptions("dinov2-small")) is None
    assert made.difference(replace(made, stride=7)) == (
        "dinov2-small with stride 14",
        "stride 7",
    )


def test_the_cost_counts_the_passes_of_all_parts(session):
    session.configure(backbone="dinov2-small+filters", transforms="lattice:2")
    cost = session.cost()
    assert cost.passes == 4 + 1
    assert cost.peak_bytes > cost.kept_bytes > 4 * 3 * 4 * 384 * 2
    assert "5 passes" in cost.text()


def test_too_little_memory_is_said_before_anything_starts(session, monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda device: 10_000)
    with pytest.raises(ValueError, match="need .* of memory and 10 kB are free"):
        session.feature_request()


def test_an_image_smaller_than_a_patch_is_refused(session, image):
    session.configure(backbone="dinov2-small")
    session.set_image(image[:10])
    with pytest.raises(ValueError, match="smaller than one patch"):
        session.cost()


@pytest.mark.parametrize(
    ("count", "text"), [(900, "1 kB"), (88e6, "88 MB"), (1.44e9, "1.4 GB")]
)
def test_bytes_are_told_in_words(count, text):
    assert bytes_text(count) == text


def test_the_interpolations_offered_are_understood():
    assert len({parse_interpolation(name) for name in INTERPOLATIONS}) == 14


def test_an_interpolation_that_does_not_fit_is_refused():
    options = FeatureOptions("dinov2-small", "shift:1,2", interpolation="interleaved+2")
    with pytest.raises(ValueError, match="'interleaved' .* 'shift:1,2' is none"):
        options.check()
    replace(options, transforms="lattice:2").check()
    replace(options, backbone="filters").check()
    with pytest.raises(ValueError, match="interpolation: 'sharp' is unknown"):
        FeatureOptions(interpolation="sharp").check()


@pytest.mark.parametrize(
    ("word", "sets"), [("auto", "lattice:2"), ("published", "shift:1,2")]
)
def test_each_part_has_the_transforms_of_its_own(word, sets):
    """Also when it is a classifier that asks for them."""
    options = FeatureOptions("dinov2-small+embedded+filters", word)
    assert options.transform_sets == (sets, "identity")
    backbone = load_backbone(options.backbone, "random", "cpu")
    image = np.random.default_rng(0).random((30, 31))
    made = compute_features(image, backbone, word).part_options
    assert [part.transforms for part in made] == [sets, "identity", "identity"]
    assert FeatureOptions.of(made).transforms == word
    vit, bank = (FeatureOptions(name, word) for name in ("dinov2-small", "filters"))
    assert vit.transform_sets == (sets,)
    assert bank.transform_sets == ("identity",)


def test_features_are_made_with_the_interpolation_that_was_set(session):
    session.configure(backbone="embedded", interpolation="bilateral+2")
    result = compute(session.feature_request())
    assert result.features.parts[0].interpolation == "bilateral+2"
    assert result.features.part_options[0].interpolation == "bilateral+2"


def test_another_interpolation_is_told_as_a_difference():
    made = FeatureOptions("dinov2-small", interpolation="bilinear")
    wanted = replace(made, interpolation="bilinear+2")
    before, after = made.difference(wanted)
    assert (before, after) == (
        "dinov2-small with interpolation bilinear",
        "interpolation bilinear+2",
    )


def test_a_way_to_debias_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="debias: 'all' is unknown; use none or mean"):
        FeatureOptions(debias="all").check()


def test_features_are_made_with_the_debias_that_was_set(session):
    session.configure(debias="mean")
    result = compute(session.feature_request())
    assert result.features.part_options[0].debias == "mean"
    made = result.source.options
    before, after = made.difference(replace(made, debias="none"))
    assert (before, after) == ("embedded with debias mean", "debias none")


def test_the_noise_images_are_part_of_the_cost(session):
    session.configure(backbone="dinov2-small", transforms="rotate")
    plain = session.cost()
    session.configure(debias="mean")
    assert session.cost().passes == plain.passes + 2 * 8  # upright and turned
    assert session.cost().peak_bytes > plain.peak_bytes
    assert session.cost().kept_bytes == plain.kept_bytes


def test_a_classifier_asks_for_the_debias_it_was_trained_with(session):
    classifier = PixelClassifier()
    filters = PartOptions("filters", "", "identity", 1, 40)
    network = PartOptions("dinov2-small", "abc", "flip", 14, 384, debias="project")
    classifier.part_options = (filters, network)
    chosen = options_for(classifier, session.options)
    assert (chosen.backbone, chosen.debias) == ("filters+dinov2-small", "project")


def test_a_classifier_of_embedded_leaves_to_other_backbones_what_suits_them(trained):
    trained.configure(transforms="identity", interpolation="bilinear")
    chosen = options_for(trained.classifier, trained.options)
    assert chosen.difference(trained.options) is None
    assert (chosen.transforms, chosen.interpolation) == ("auto", "auto")


def test_a_session_takes_strides_in_words_and_refuses_what_is_none():
    session = Session()
    session.configure(backbone="dinov2-small", stride="half")
    assert session.options.stride == 7
    session.configure(stride="auto")
    assert session.options.stride is None
    with pytest.raises(ValueError, match="stride: 'wide' does not fit"):
        session.configure(stride="wide")


@pytest.mark.parametrize(
    ("backbone", "way"),
    [
        ("dinov2-small", "bilateral"),
        ("dino-small-8@k11", "bilateral"),
        ("dinov2-small+embedded", "bilinear"),
        ("embedded", "bilinear"),
        ("filters", "bilinear"),
        ("spit-small", "bilinear"),
    ],
)
def test_tokens_of_a_vit_alone_follow_the_edges_of_the_image(backbone, way):
    options = FeatureOptions(backbone)
    assert (options.interpolation, options.upsampling) == ("auto", way)
    options.check()
    assert options.difference(replace(options, interpolation=way)) is None
    loaded = load_backbone(backbone, "random", "cpu")
    image = np.random.default_rng(0).random((34, 47))
    made = compute_features(image, loaded, interpolation="auto").part_options
    assert {part.interpolation for part in made} == {way}
    plain = compute_features(image, loaded).part_options
    assert {part.interpolation for part in plain} == {"bilinear"}
    published = compute_features(
        image, loaded, "identity", interpolation="auto", compat="reference"
    )
    assert {part.interpolation for part in published.part_options} == {"nearest"}


def test_in_blocks_auto_needs_no_whole_image():
    options = FeatureOptions("dinov2-small", device="cpu")
    assert estimate_cost((900, 900), options, block=256).passes > 4
    backbone = load_backbone(options.backbone, "random", "cpu")
    image = np.random.default_rng(0).random((60, 50))
    made = block_features(image, backbone, interpolation="auto", block=256)
    assert made.part_options[0].interpolation == "bilinear"
