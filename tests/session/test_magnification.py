"""An image of other pixels than those of a loaded classifier, live."""

from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.features.blocks import BlockFeatures
from napari_hrdv2.core.features.resampled import ResampledFeatures, resized
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files.labels import read_labels
from napari_hrdv2.session import FeatureOptions, Session, compute
from napari_hrdv2.session.batch.whole import whole_request
from napari_hrdv2.session.blocks import features as rooms
from napari_hrdv2.session.export import export_all
from napari_hrdv2.session.features import FeatureSource
from napari_hrdv2.session.images import resolved
from napari_hrdv2.session.pipeline import process_image
from napari_hrdv2.session.planes import Plane
from napari_hrdv2.session.project.snapshot import project_of, restore
from napari_hrdv2.session.project.store import load_project, save_project
from synthetic import two_textures

SIDE = 192


@pytest.fixture(scope="module")
def fine():
    """A session that was painted on pixels of 250 nm, and the truth."""
    image, truth = two_textures(SIDE)
    session = new_session(image, (250.0, "nm"))
    session.set_scribbles(scribbles_of(truth))
    session.compute_features()
    session.train()
    return session, truth


@pytest.fixture(scope="module")
def path(fine, tmp_path_factory):
    path = tmp_path_factory.mktemp("fine") / "fine.safetensors"
    fine[0].save_classifier(path)
    return path


def new_session(image, size):
    session = Session()
    session.configure(backbone="filters")
    session.set_image(image, "image", pixel_size=size, name="coarse")
    return session


def scribbles_of(truth):
    return np.where(np.add(*np.indices(truth.shape)) % 40 < 3, truth, 0)


def at(factor, truth):
    """Return the same picture with so many times as many pixels a side, and classes."""
    image = resized(two_textures(SIDE)[0], (factor, factor))
    rows, columns = (((np.arange(n) + 0.5) / factor).astype(int) for n in image.shape)
    return image, truth[np.ix_(rows, columns)]


def segmented(image, path, size=(0.5, "µm"), resamples=True):
    """Return a session with an image that a loaded classifier has segmented."""
    session = new_session(image, size)
    session.configure(resamples=resamples)
    session.load_classifier(path)
    session.compute_features()
    session.train()
    return session


@pytest.fixture
def coarse(fine, path):
    """A session of half as many pixels a side, and the truth."""
    image, truth = at(0.5, fine[1])
    session = segmented(image, path)
    session.truth = truth
    return session


def score(session, truth):
    return mean_iou(truth, session.segmentation, (1, 2))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_loaded_classifier_segments_live_at_another_magnification(fine, path, factor):
    image, truth = at(factor, fine[1])
    size = 250.0 / factor, "nm"
    both = (segmented(image, path, size, resamples) for resamples in (True, False))
    scores = [score(session, truth) for session in both]
    assert scores[0] > score(*fine) - 0.03
    assert scores[1] < score(*fine) - 0.1


def test_it_is_what_apply_to_many_gives(coarse):
    options = FeatureOptions.of(coarse.classifier.part_options)
    source = FeatureSource(options, options.load())
    snapshot = replace(coarse.current.snapshot(), features=None)
    result = process_image(snapshot, coarse.classifier, source=source, resamples=True)
    np.testing.assert_array_equal(result.labels, coarse.segmentation)


def test_the_status_says_that_the_image_was_resampled(coarse):
    assert isinstance(coarse.features, ResampledFeatures)
    assert coarse.features.shape[1:] == coarse.image.shape
    assert (
        "Its pixels are 2 times as large as those of the training (0.5 µm, 250 nm), "
        "and it was resampled to them." in coarse.status
    )


def test_features_of_own_pixels_are_to_be_computed_again(fine, path):
    image, truth = at(0.5, fine[1])
    session = new_session(image, (0.5, "µm"))
    session.compute_features()
    before = session.cost()
    session.load_classifier(path)
    session.train()
    told = "from its own pixels; press Compute features to use pixels of 250 nm."
    assert session.status.endswith(f"Result {told}")
    assert session.cost().peak_bytes > 2 * before.peak_bytes  # it says so beforehand
    session.compute_features()
    session.train()
    assert not session.live.outdated(session.current)
    assert score(session, truth) > score(*fine) - 0.03


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (None, "Its pixel size is not known; it was taken as it is."),
        ((2.5, "µm"), "10 times as large as those of the training (2.5 µm, 250 nm)."),
        ((0.5, "µm"), "2 times as large as those of the training (0.5 µm, 250 nm)."),
        ((255.0, "nm"), "Painting trains a new one."),
    ],
)
def test_what_cannot_be_resampled_is_told(fine, path, size, told):
    is_on = size != (0.5, "µm")
    session = segmented(fine[0].image, path, size, resamples=is_on)
    assert session.status.endswith(told)
    assert not isinstance(session.features, ResampledFeatures)
    assert session.next_feature_request() is None


def test_regions_are_taken_as_they_are(fine):
    entry = replace(fine[0].options, pixel_size=(100.0, "nm"))
    assert resolved(fine[0].current, entry).pixel_ratio == (2.5, 2.5)
    entry = replace(entry, backbone="spit-small")
    assert resolved(fine[0].current, entry).pixel_ratio is None


def test_one_paints_on_top_of_it_as_on_any(coarse, tmp_path):
    assert coarse.guidance.uncertainty().shape == coarse.image.shape
    features = coarse.features
    coarse.set_scribbles(scribbles_of(coarse.truth))
    coarse.train()
    assert not coarse.is_loaded
    assert coarse.features is features
    assert "it was resampled to them" in coarse.status
    assert score(coarse, coarse.truth) > 0.95
    # Other images are to be seen as this one was.
    assert coarse.named_classifier().pixel_size == (250.0, "nm")
    request = coarse.series.request()
    assert request.pixel_ratios == ((2.0, 2.0),)
    assert request.known == (features,)
    coarse.save_classifier(tmp_path / "new.safetensors")
    assert PixelClassifier.load(tmp_path / "new.safetensors").pixel_size[0] == 250


def test_images_that_were_painted_are_seen_alike(coarse):
    coarse.set_scribbles(scribbles_of(coarse.truth))
    coarse.set_image(coarse.image + 0, "fine", pixel_size=(250.0, "nm"))
    coarse.compute_features()
    coarse.train()
    assert not isinstance(coarse.features, ResampledFeatures)
    assert coarse.named_classifier().pixel_size == (250.0, "nm")
    assert "times" not in coarse.status
    coarse.images["image"].set_features(coarse.features, coarse.current.options)
    keys = []
    while (request := coarse.next_feature_request()) is not None:
        keys.append(str(request.key))
        coarse.accept(compute(request))
    assert keys == ["image"]  # its features were of its own pixels
    assert isinstance(coarse.images["image"].features, ResampledFeatures)


def test_a_classifier_keeps_the_pixel_size_that_it_was_trained_at(coarse, tmp_path):
    """Also where, with Live off, the features are of other pixels by now."""
    coarse.set_scribbles(scribbles_of(coarse.truth))
    coarse.train()
    trained = coarse.classifier
    coarse.configure(resamples=False)
    coarse.compute_features()
    assert coarse.classifier is trained
    assert not isinstance(coarse.features, ResampledFeatures)
    coarse.save_classifier(tmp_path / "c.safetensors")
    saved = PixelClassifier.load(tmp_path / "c.safetensors")
    assert saved.pixel_size == (250.0, "nm")
    assert coarse.series.labelled() == []  # what it has now is not what was trained on
    coarse.train()
    assert coarse.named_classifier().pixel_size == (0.5, "µm")
    assert coarse.series.labelled() == [coarse.current]


def test_toggling_makes_another_classifier_for_the_series(coarse):
    coarse.set_scribbles(scribbles_of(coarse.truth))
    coarse.train()
    request = coarse.series.request()
    coarse.series.accept(request, compute(request))
    assert coarse.series.request() is None
    coarse.configure(resamples=False)
    coarse.compute_features()
    coarse.train()
    assert coarse.series.request().pixel_ratios == ((1.0, 1.0),)


def test_features_of_two_kinds_of_pixels_do_not_train_together(coarse):
    coarse.set_scribbles(scribbles_of(coarse.truth))
    made = coarse.features, coarse.current.options
    other = coarse.current
    coarse.configure(resamples=False)
    coarse.set_image(coarse.image + 0, "own", pixel_size=(0.5, "µm"))
    coarse.set_scribbles(scribbles_of(coarse.truth))
    coarse.accept(compute(coarse.feature_request()))
    assert (other.features, other.options) == made
    assert coarse.images.usable() == [coarse.current]
    assert coarse.live.of_other_kind() == []  # it is computed again, by itself
    coarse.accept(compute(coarse.next_feature_request()))
    assert not isinstance(other.features, ResampledFeatures)
    assert coarse.images.usable() == [other, coarse.current]
    assert coarse.next_feature_request() is None


def test_an_image_that_cannot_train_here_is_not_computed_again_and_again(coarse):
    coarse.set_scribbles(scribbles_of(coarse.truth))
    coarse.set_image(np.eye(96), "grey", pixel_size=(250.0, "nm"))
    coarse.set_scribbles(scribbles_of(np.ones((96, 96), int)))
    coarse.compute_features()
    grey = coarse.current
    colours = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    coarse.set_image(colours, "colours", pixel_size=(250.0, "nm"))
    coarse.configure(resamples=False)
    coarse.accept(compute(coarse.feature_request()))
    assert grey not in coarse.images.usable()
    keys = []
    while (request := coarse.next_feature_request()) is not None:
        keys.append(str(request.key))
        coarse.accept(compute(request))
    assert keys == ["image"]


def test_a_pixel_size_that_is_typed_later_counts(coarse):
    coarse.current.pixel_size = (250.0, "nm")
    told = "from pixels of 250 nm; press Compute features to use its own pixels."
    assert told in coarse.next_step()
    coarse.compute_features()
    assert not isinstance(coarse.features, ResampledFeatures)


def test_another_backbone_sees_own_pixels_again(coarse):
    coarse.configure(backbone="embedded")
    assert coarse.options.pixel_size is None
    nan, infinite = float("nan"), float("inf")
    for size in (0, -1.0, nan, (1.0, 0.0), (infinite, 1.0), (1.0, nan)):
        with pytest.raises(ValueError, match="pixel_size: .*: sides above 0 are"):
            coarse.configure(pixel_size=(size, "nm"))


@pytest.mark.parametrize("paints", [False, True])
def test_a_project_brings_it_back(coarse, tmp_path, paints):
    if paints:
        coarse.set_scribbles(scribbles_of(coarse.truth))
        coarse.train()
    save_project(project_of(coarse), tmp_path / "p.hrdv2", with_images=True)
    again = Session()
    restore(again, load_project(tmp_path / "p.hrdv2"))
    again.compute_features()
    again.train()
    assert isinstance(again.features, ResampledFeatures)
    assert "it was resampled to them" in again.status
    np.testing.assert_array_equal(again.segmentation, coarse.segmentation)


@pytest.mark.parametrize("kind", ["resampled", "own", "regions"])
def test_an_image_that_was_never_shown_is_exported_as_it_would_be_shown(
    fine, path, tmp_path, monkeypatch, kind
):
    if kind == "regions":
        monkeypatch.setattr(
            "napari_hrdv2.session.images.divides_into_regions", lambda backbone: True
        )
    image, _ = at(0.5, fine[1])
    session = segmented(image, path, resamples=kind != "own")
    other = image[:, ::-1].copy()
    session.images.add(other, "b", name="b", pixel_size=(0.5, "µm"))
    export_all(session, tmp_path, formats=["labels"], all_images=True)
    session.set_image(other, "b")
    session.compute_features()
    session.train()
    assert isinstance(session.features, ResampledFeatures) == (kind == "resampled")
    found = read_labels(tmp_path / "b_labels.tif")
    np.testing.assert_array_equal(found, session.segmentation)


@pytest.mark.parametrize("paints", [False, True])
def test_an_exported_script_does_it_again(coarse, tmp_path, monkeypatch, paints):
    if paints:
        coarse.set_scribbles(scribbles_of(coarse.truth))
        coarse.train()
    out = tmp_path / "out"
    out.mkdir()
    export_all(coarse, out)
    methods = next(out.glob("*methods*")).read_text(encoding="utf-8")
    assert "coarse (2 × 2 times) was resized" in methods
    monkeypatch.chdir(out)
    (script,) = out.glob("*.py")
    exec(compile(script.read_text("utf-8"), "script.py", "exec"), {"__name__": "a"})
    again = read_labels(out / "coarse_segmentation.tif")
    assert np.mean(again == coarse.segmentation) > 0.99


def test_an_image_in_blocks_is_seen_so_too(path, monkeypatch, tmp_path):
    pixels = resized(two_textures(640)[0], (0.5, 0.5))
    expected = segmented(pixels, path).segmentation
    monkeypatch.setattr("napari_hrdv2.session.features.BLOCK", 256)
    monkeypatch.setattr("napari_hrdv2.session.planes.LARGE", 2**10)
    monkeypatch.setattr("napari_hrdv2.core.features.blocks.features.SAMPLED_BLOCKS", 2)
    monkeypatch.setattr(rooms, "user_cache_path", lambda *_, **__: tmp_path)
    plane = Plane(lambda: pixels, pixels.shape, pixels.dtype, lambda at: pixels[at])
    session = segmented(plane, path)
    assert isinstance(session.features, BlockFeatures)
    assert "computed where you look" in session.cost().brief()
    assert session.current.result.is_partial
    assert "it was resampled to them" in session.status
    compute(session.live.block_request(), partial=session.accept)
    assert np.mean(session.segmentation == expected) > 0.99
    assert session.accept(compute(whole_request(session, tmp_path / "all.zarr")))
    assert np.mean(np.asarray(session.segmentation) == expected) > 0.99
