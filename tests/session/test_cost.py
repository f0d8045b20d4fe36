"""What is said of a computation before it begins."""

import pytest

from napari_hrdv2.core.features.cost import estimate_cost
from napari_hrdv2.session import Cost, FeatureOptions

SIDE = (224, 224)


def cost(backbone, **options):
    return estimate_cost(SIDE, FeatureOptions(backbone=backbone, **options))


def test_the_text_tells_passes_and_memory():
    told = Cost(17, 10_000_000, 850_000_000, 8 * 10**9)
    assert told.text() == (
        "17 passes, 850 MB of memory needed, 10 MB kept (8.0 GB free)"
    )
    assert Cost(1, 10, 850_000_000, 8 * 10**9).brief() == "1 pass, 850 MB"
    assert told.as_dict() == {
        "passes": 17,
        "peak_bytes": 850_000_000,
        "kept_bytes": 10_000_000,
    }


@pytest.mark.parametrize("name", ["dino-small-16@k2", "dino-small-16@a1", "spit-small"])
@pytest.mark.parametrize("how", ["auto", "bilinear"])
def test_an_outline_costs_what_the_loaded_backbone_costs(name, how):
    import napari_hrdv2 as hr
    from estimates import estimate

    told = cost(name, transforms="flip", interpolation=how, device="cpu")
    backbone = hr.load_backbone(name, "random", "cpu")
    loaded = estimate(SIDE, backbone, "flip", interpolation=how)
    assert (told.kept_bytes, told.peak_bytes) == (
        loaded.token_bytes,
        loaded.peak_bytes,
    )


@pytest.mark.parametrize("name", ["embedded", "filters"])
@pytest.mark.parametrize("shape", [SIDE, (*SIDE, 3)])
def test_what_the_package_brings_along_costs_the_same_loaded(name, shape):
    import napari_hrdv2 as hr
    from estimates import estimate

    told = estimate_cost(shape, FeatureOptions(backbone=name, device="cpu"))
    channels = 1 if len(shape) == 2 else 3
    backbone = hr.load_backbone(name, None, "cpu")
    loaded = estimate(SIDE, backbone, image_channels=channels)
    assert (told.kept_bytes, told.peak_bytes) == (
        loaded.token_bytes,
        loaded.peak_bytes,
    )


@pytest.mark.parametrize("ratio", [(1.01, 1.0), (9.0, 9.0)])
def test_pixels_that_are_not_resized_cost_what_they_are(ratio):
    told, plain = cost("embedded", pixel_ratio=ratio), cost("embedded")
    assert (told.kept_bytes, told.peak_bytes) == (plain.kept_bytes, plain.peak_bytes)
    more = cost("embedded", pixel_ratio=(2.0, 2.0))
    assert more.kept_bytes > 3 * cost("embedded").kept_bytes


def test_debias_costs_nothing_where_regions_know_their_place():
    plain = cost("spit-small", transforms="flip")
    told = cost("spit-small", transforms="flip", debias="project")
    assert plain.passes == told.passes == 4
    assert plain.kept_bytes == told.kept_bytes
    both = cost("spit-small+dinov2-small", transforms="flip", debias="mean")
    assert both.passes == 4 + 4 + 8


def test_a_finer_stride_and_more_passes_cost_more():
    tokens = {"interpolation": "bilinear"}  # keeps no guide beside them
    plain = cost("dinov2-small", transforms="identity", **tokens)
    fine = cost("dinov2-small", transforms="identity", stride=7, **tokens)
    many = cost("dinov2-small", transforms="shift:1", **tokens)
    assert fine.kept_bytes > 3.5 * plain.kept_bytes
    assert many.kept_bytes == 9 * plain.kept_bytes
    assert many.passes == 9


def test_of_a_model_of_the_hub_the_memory_is_that_of_a_vit_b():
    told = cost("someone/something", device="cpu")
    assert told.kept_bytes == cost("dinov2-base", device="cpu").kept_bytes
