from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.session import Session, compute
from napari_hrdv2.session.batch.whole import whole_request
from small_networks import adapted_embedded


@pytest.fixture
def path(trained, tmp_path):
    trained.classes.ensure((), names={1: "matrix"}, colors={2: "#123456"})
    trained.save_classifier(tmp_path / "saved.safetensors")
    return tmp_path / "saved.safetensors"


@pytest.fixture
def path_with_levels(trained, tmp_path):
    """A classifier on features that know absolute grey levels."""
    trained.configure(backbone="filters")
    trained.compute_features()
    trained.train()
    trained.save_classifier(tmp_path / "levels.safetensors")
    return tmp_path / "levels.safetensors"


def test_a_saved_classifier_segments_another_session_alike(trained, path, image):
    other = Session()
    other.set_image(image)
    other.compute_features()
    other.load_classifier(path)
    other.train()
    np.testing.assert_array_equal(other.segmentation, trained.segmentation)
    assert other.classes[1].name == "matrix"
    assert other.classes[2].color == "#123456"


def test_saving_leaves_the_live_classifier_as_it_is(trained, tmp_path):
    trained.classes.ensure((), names={1: "matrix"})
    live = trained.classifier
    trained.save_classifier(tmp_path / "saved.safetensors")
    assert trained.classifier is live
    assert live.class_names == live.class_colors == {}


def test_a_loaded_classifier_waits_for_its_features(path, image):
    other = Session()
    other.set_image(image)
    other.load_classifier(path)
    assert "needs features by embedded" in other.status
    other.compute_features()
    other.train()
    assert set(np.unique(other.segmentation)) == {1, 2}


def test_others_options_sets_the_choice_and_says_so(path, image):
    session = Session()
    session.set_image(image)
    session.configure(backbone="dinov2-small", stride=7)
    session.load_classifier(path)
    assert session.options.backbone == "embedded"
    assert session.options.value_range is None  # it makes no difference there
    assert "needs features by embedded" in session.status


def test_scribbles_painted_before_do_not_replace_a_loaded_classifier(trained, path):
    loaded = PixelClassifier.load(path)
    trained.load_classifier(path)
    trained.train()
    np.testing.assert_array_equal(trained.classifier.weight, loaded.weight)


def test_new_scribbles_replace_a_loaded_classifier(trained, path, labels):
    trained.load_classifier(path)
    trained.train()
    labels[30:36, 4:20] = 3
    trained.set_scribbles(labels)
    trained.train()
    assert trained.classifier.classes.tolist() == [1, 2, 3]


def test_there_must_be_something_to_save(session, tmp_path):
    with pytest.raises(ValueError, match="There is no classifier yet"):
        session.save_classifier(tmp_path / "none.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_everything_as_it_was(trained, tmp_path):
    classifier, segmentation = trained.classifier, trained.segmentation
    with pytest.raises(OSError, match="could not be written"):
        trained.save_classifier(tmp_path / "missing" / "saved.safetensors")
    assert trained.classifier is classifier
    assert trained.segmentation is segmentation
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_classifier_changes_nothing(trained, tmp_path):
    classifier, settings = trained.classifier, trained.options
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="is not a classifier of napari-hrdv2"):
        trained.load_classifier(tmp_path / "junk.safetensors")
    assert trained.classifier is classifier
    assert trained.options == settings


def test_undo_brings_the_loaded_classifier_and_its_result_back(trained, path, labels):
    trained.load_classifier(path)
    trained.train()
    loaded, former = trained.classifier.weight, trained.segmentation.copy()
    more = labels.copy()
    more[30:36, 4:20] = 2
    trained.set_scribbles(more)
    trained.train()
    assert (trained.segmentation != former).any()
    trained.set_scribbles(labels)
    trained.train()
    np.testing.assert_array_equal(trained.segmentation, former)
    np.testing.assert_array_equal(trained.classifier.weight, loaded)
    assert trained.status.startswith("Segmented by the loaded classifier")


def test_training_by_hand_replaces_a_loaded_classifier_for_good(trained, path):
    trained.load_classifier(path)
    trained.train()
    trained.train(force=True)
    assert not trained.is_loaded
    assert trained.train_request() is None
    assert not trained.is_loaded


def test_scribbles_and_undo_switch_the_grey_levels_of_a_loaded_classifier(
    trained, path_with_levels, labels
):
    trained.load_classifier(path_with_levels)
    trained.train()
    assert trained.options.value_range == (0.0, 255.0)
    more = labels.copy()
    more[30:36, 4:20] = 2
    trained.set_scribbles(more)
    trained.train()
    assert trained.options.value_range is None
    trained.set_scribbles(labels)
    trained.train()
    assert trained.options.value_range == (0.0, 255.0)


def test_another_image_or_backbone_resets_the_grey_levels(
    trained, path_with_levels, image
):
    trained.load_classifier(path_with_levels)
    trained.configure(backbone="dinov2-small")
    assert trained.options.value_range is None
    trained.load_classifier(path_with_levels)
    trained.set_image(image / 7.0)
    assert trained.options.value_range is None
    with pytest.warns(UserWarning, match="own range"):
        trained.compute_features()
    assert trained.status.endswith("Load it again to take over its grey levels.")


def test_where_computing_again_would_not_help_it_is_not_advised(trained, path):
    classifier = trained.classifier
    (part,) = classifier.part_options
    classifier.weight = classifier.weight[:, : part.channels // 2]
    classifier.part_options = (replace(part, channels=part.channels // 2),)
    trained.save_classifier(path)
    trained.load_classifier(path)
    assert trained.status == (
        f"features: {part.backbone} has context features now, and the classifier was "
        "trained without; train it again."
    )


def test_a_mismatching_classifier_clears_the_former_result(trained, path):
    trained.classifier.part_options = ()  # any features would do, but for
    trained.classifier.weight = trained.classifier.weight[:, :5]  # the channels
    trained.save_classifier(path)
    trained.load_classifier(path)
    assert "reads 5 channels" in trained.status
    assert not trained.segmentation.any()


def test_a_path_without_a_suffix_gets_one(trained, tmp_path):
    trained.save_classifier(tmp_path / "saved")
    assert (tmp_path / "saved.safetensors").exists()
    assert trained.status.endswith("saved.safetensors.")


def test_a_classifier_of_a_series_says_that_images_here_have_their_own_levels(
    trained, path, image
):
    classifier = PixelClassifier.load(path)
    classifier.normalisation = replace(classifier.normalisation, kind="matched")
    trained.adopt_classifier(classifier, trained.options)
    trained.train()
    assert "trained with matched grey levels" in trained.status
    assert "Apply to many" in trained.status


def test_a_classifier_of_weights_given_by_hand_says_how_to_have_them(
    session, labels, image, tmp_path
):
    weights = str(adapted_embedded(tmp_path / "adapted.safetensors"))
    session.configure(weights=weights)
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    session.save_classifier(tmp_path / "saved.safetensors")
    other = Session()
    other.set_image(image)
    other.compute_features()
    other.load_classifier(tmp_path / "saved.safetensors")
    assert "give the file that it was trained with" in other.status
    assert other.status.endswith("is under More choices; then press Compute.")
    other.configure(weights=weights)
    other.compute_features()
    other.train()
    np.testing.assert_array_equal(other.segmentation, session.segmentation)
    # And back: published weights for a classifier of those.
    session.configure(weights=None)
    session.load_classifier(tmp_path / "saved.safetensors")
    session.compute_features()
    assert "give the file that it was trained with" in session.status


def test_a_second_loaded_classifier_is_not_shown_by_the_result_of_the_first(
    trained, path, tmp_path
):
    trained.load_classifier(path)
    trained.train()
    former, late = (
        trained.segmentation.copy(),
        whole_request(trained, tmp_path / "a.zarr"),
    )
    swapped = PixelClassifier.load(path)
    swapped.weight, swapped.bias = swapped.weight[::-1].copy(), swapped.bias[::-1]
    swapped.save(tmp_path / "swapped.safetensors")
    trained.load_classifier(tmp_path / "swapped.safetensors")
    assert not trained.accept(compute(late))
    trained.train()
    np.testing.assert_array_equal(trained.segmentation, 3 - former)
    trained.load_classifier(tmp_path / "swapped.safetensors")
    assert trained.train_request() is None  # it is the same one


def test_scribbles_of_strangers_are_not_saved_with_a_loaded_classifier(
    trained, image, labels, tmp_path
):
    path = tmp_path / "plain.safetensors"
    trained.classifier.save(path)
    other = Session()
    other.set_image(image)
    other.set_scribbles(np.where(labels, labels + 2, 0))
    other.compute_features()
    other.load_classifier(path)
    other.train()
    assert other.is_loaded
    other.save_classifier(path)
    assert PixelClassifier.load(path).painted is None
    with pytest.raises(ValueError, match="does not keep what was painted"):
        other.guidance.unlike_painted()


def test_a_loaded_classifier_goes_with_the_scribbles_that_trained_it(trained, tmp_path):
    expected, path = trained.guidance.unlike_painted(), tmp_path / "one.safetensors"
    trained.classifier.save(path)
    trained.load_classifier(path)  # as a project is opened
    trained.train()
    assert trained.is_loaded
    assert np.array_equal(trained.guidance.unlike_painted(), expected)
    trained.save_classifier(path)
    assert PixelClassifier.load(path).painted is not None


def test_what_was_painted_is_saved_while_another_image_is_shown(
    trained, image, tmp_path
):
    trained.set_image(image.copy(), "without features")
    trained.save_classifier(tmp_path / "one.safetensors")
    painted = PixelClassifier.load(tmp_path / "one.safetensors").painted
    assert painted is not None
