"""What is said of a computation before it begins."""

import pytest

from napari_hrdv2.core.features.pace import PACES
from napari_hrdv2.session import Cost, FeatureOptions
from napari_hrdv2.session.cost import estimate_cost, operations_text

SIDE = (224, 224)


@pytest.fixture(autouse=True)
def no_runs_before():
    PACES.clear()
    yield
    PACES.clear()


def cost(backbone, **options):
    return estimate_cost(SIDE, FeatureOptions(backbone=backbone, **options))


def test_the_text_tells_passes_operations_seconds_and_memory():
    told = Cost(17, 10_000_000, 850_000_000, 8 * 10**9, 1_234 * 10**9, 41.3)
    assert told.text() == (
        "17 passes, 1.2 TFLOP, about 41 s, 850 MB of memory needed, 10 MB kept "
        "(8.0 GB free)"
    )


def test_what_is_not_known_is_left_out():
    told = Cost(1, 10_000_000, 850_000_000, 8 * 10**9)
    assert told.text().startswith("1 pass, 850 MB of memory needed, ")
    assert told.as_dict()["operations"] is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(1.24e12, "1.2 TFLOP"), (85e9, "85 GFLOP"), (12e3, "0.0 MFLOP"), (2e15, "2.0 P")],
)
def test_operations_are_told_in_words(count, text):
    assert operations_text(count).startswith(text)


@pytest.mark.parametrize("name", ["dino-small-16@k2", "dino-small-16@a1", "spit-small"])
def test_an_outline_costs_what_the_loaded_backbone_costs(name):
    import napari_hrdv2 as hr
    from napari_hrdv2.core.features.memory import estimate

    told = cost(name, transforms="flip", device="cpu")
    loaded = estimate(SIDE, hr.load_backbone(name, "random", "cpu"), "flip")
    assert (told.operations, told.kept_bytes, told.peak_bytes) == (
        loaded.operations,
        loaded.token_bytes,
        loaded.peak_bytes,
    )


def test_a_facet_costs_the_blocks_up_to_its_own():
    told = cost("dino-small-16@k2", transforms="flip", device="cpu")
    assert told.operations == cost("dino-small-16@t2", transforms="flip").operations
    assert told.operations < cost("dino-small-16", transforms="flip").operations


@pytest.mark.parametrize("name", ["embedded", "filters"])
@pytest.mark.parametrize("shape", [SIDE, (*SIDE, 3)])
def test_what_the_package_brings_along_costs_the_same_loaded(name, shape):
    import napari_hrdv2 as hr
    from napari_hrdv2.core.features.memory import estimate

    told = estimate_cost(shape, FeatureOptions(backbone=name, device="cpu"))
    channels = 1 if len(shape) == 2 else 3
    backbone = hr.load_backbone(name, None, "cpu")
    loaded = estimate(SIDE, backbone, image_channels=channels)
    assert (told.kept_bytes, told.peak_bytes, told.operations) == (
        loaded.token_bytes,
        loaded.peak_bytes,
        loaded.operations,
    )


def test_debias_costs_nothing_where_regions_know_their_place():
    plain = cost("spit-small", transforms="flip")
    told = cost("spit-small", transforms="flip", debias="project")
    assert plain.passes == told.passes == 4
    assert plain.kept_bytes == told.kept_bytes
    both = cost("spit-small+dinov2-small", transforms="flip", debias="mean")
    assert both.passes == 4 + 4 + 8


def test_a_finer_stride_and_more_passes_cost_more():
    plain = cost("dinov2-small", transforms="identity")
    fine = cost("dinov2-small", transforms="identity", stride=7)
    many = cost("dinov2-small", transforms="shift:1")
    assert fine.operations > 3.5 * plain.operations
    assert many.operations == 9 * plain.operations
    assert many.seconds == pytest.approx(9 * plain.seconds)


def test_of_a_model_of_the_hub_the_seconds_are_known_after_its_first_run():
    assert cost("someone/something", device="cpu").seconds is None
    told = cost("someone/something", device="cpu")
    assert "FLOP" not in told.text()
    # Its channels are not known either: memory is that of a ViT-B.
    assert told.kept_bytes == cost("dinov2-base", device="cpu").kept_bytes


@pytest.mark.parametrize("name", ["embedded", "filters", "spit-base", "dinov3-base"])
def test_every_kind_tells_its_operations_and_seconds(name):
    told = cost(name, device="cpu")
    assert told.operations > 10**8
    assert told.seconds > 0
