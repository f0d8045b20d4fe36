import numpy as np
import pytest

from napari_hrdv2.core.classifier import PixelClassifier
from napari_hrdv2.session import Session


@pytest.fixture
def path(trained, tmp_path):
    trained.ensure_classes((), names={1: "matrix"}, colors={2: "#123456"})
    trained.save_classifier(tmp_path / "saved.safetensors")
    return tmp_path / "saved.safetensors"


def test_a_saved_classifier_segments_another_session_alike(trained, path, image):
    other = Session()
    other.set_image(image)
    other.compute_features()
    other.load_classifier(path)
    other.train()
    np.testing.assert_array_equal(other.segmentation, trained.segmentation)
    assert other.classes[1].name == "matrix"
    assert other.classes[2].color == "#123456"


def test_a_loaded_classifier_waits_for_its_features(path, image):
    other = Session()
    other.set_image(image)
    other.load_classifier(path)
    assert "needs features by filters" in other.status
    other.compute_features()
    other.train()
    assert set(np.unique(other.segmentation)) == {1, 2}


def test_another_recipe_sets_the_choice_and_says_so(path, image):
    session = Session()
    session.set_image(image)
    session.configure(backbone="dinov2-small", stride="half")
    session.load_classifier(path)
    assert session.settings.backbone == "filters"
    assert session.settings.value_range == (0.0, 255.0)
    assert "needs features by filters" in session.status


def test_strokes_painted_before_do_not_replace_a_loaded_classifier(trained, path):
    loaded = PixelClassifier.load(path)
    trained.load_classifier(path)
    trained.train()
    np.testing.assert_array_equal(trained.classifier.weight, loaded.weight)


def test_new_strokes_replace_a_loaded_classifier(trained, path, labels):
    trained.load_classifier(path)
    trained.train()
    labels[30:36, 4:20] = 3
    trained.set_scribbles(labels)
    trained.train()
    assert trained.classifier.classes.tolist() == [1, 2, 3]


def test_there_must_be_something_to_save(session, tmp_path):
    with pytest.raises(ValueError, match="There is no classifier to save yet"):
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
    classifier, settings = trained.classifier, trained.settings
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="is not a classifier of napari-hrdv2"):
        trained.load_classifier(tmp_path / "junk.safetensors")
    assert trained.classifier is classifier
    assert trained.settings == settings
