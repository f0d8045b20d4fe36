import numpy as np
import pytest

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.session import Session, compute


def test_two_painted_classes_are_segmented(trained):
    assert np.mean(trained.segmentation[:, :20] == 1) > 0.9
    assert np.mean(trained.segmentation[:, 28:] == 2) > 0.9
    assert trained.phase_fractions() == pytest.approx({1: 0.5, 2: 0.5}, abs=0.15)
    assert trained.status.startswith("Segmented.")


def test_an_rgb_image_is_segmented_too(image, labels):
    session = Session()
    session.set_image(np.stack([image, image, 255 - image], axis=-1))
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    assert set(np.unique(session.segmentation)) == {1, 2}


@pytest.mark.parametrize("shape", [(40,), (4, 40, 48), (2, 2, 40, 48)])
def test_what_is_no_image_is_refused(shape):
    session = Session()
    with pytest.raises(ValueError, match="is not one micrograph"):
        session.set_image(np.zeros(shape))
    assert session.image is None


def test_labels_of_another_shape_are_refused_and_train_nothing(trained):
    with pytest.raises(ValueError, match=r"labels: shape \(3, 3\)"):
        trained.set_scribbles(np.ones((3, 3), np.uint8))
    assert trained.train_request() is None


def test_labels_without_an_image_are_refused(labels):
    with pytest.raises(ValueError, match="there is no image yet"):
        Session().set_scribbles(labels)


def test_scribbles_before_the_features_wait_for_them(session, labels):
    session.set_scribbles(labels)
    assert session.train_request() is None
    assert "Compute features" in session.status


def test_one_class_alone_says_to_paint_another(session, labels):
    session.compute_features()
    session.set_scribbles(np.where(labels == 1, labels, 0))
    session.train()
    assert session.segmentation is None
    assert session.status.startswith("Only Class 1 has scribbles")


def test_falling_back_to_one_class_clears_the_segmentation(trained, labels):
    trained.set_scribbles(np.where(labels == 1, labels, 0))
    trained.train()
    assert not trained.segmentation.any()
    assert trained.phase_fractions() == {}
    assert trained.classifier is None


def test_the_same_scribbles_are_not_trained_twice(trained, labels):
    assert not trained.set_scribbles(labels.copy())
    assert trained.train_request() is None
    assert trained.train_request(force=True) is not None


def test_undo_brings_exactly_the_former_segmentation_back(trained, labels):
    former = trained.segmentation.copy()
    more = labels.copy()
    more[30:36, 4:20] = 2
    trained.set_scribbles(more)
    trained.train()
    assert (trained.segmentation != former).any()
    trained.set_scribbles(labels)
    request = trained.train_request()
    assert request.training == ()  # nothing is fitted again
    trained.accept(compute(request))
    np.testing.assert_array_equal(trained.segmentation, former)


def test_painted_labels_become_classes(session, labels):
    session.set_scribbles(np.where(labels == 2, 7, labels))
    assert list(session.classes) == [1, 2, 7]
    assert session.classes[7].name == "Class 7"
    assert session.add_class() == 8


def test_a_snapshot_is_not_changed_by_further_painting(session, labels):
    session.compute_features()
    session.set_scribbles(labels)
    request = session.train_request()
    labels[:] = 0
    assert set(np.unique(request.training[0].labels)) == {0, 1, 2}


def test_features_of_another_image_come_too_late(session, image):
    result = compute(session.feature_request())
    session.set_image(255 - image)
    assert not session.accept(result)
    assert session.features is None


def test_a_segmentation_of_older_scribbles_comes_too_late(trained, labels):
    more = labels.copy()
    more[30:36, 4:20] = 2
    trained.set_scribbles(more)
    late = compute(trained.train_request())
    trained.set_scribbles(labels)
    trained.train_request()
    before = trained.segmentation
    assert not trained.accept(late)
    assert trained.segmentation is before


def test_a_cancelled_computation_keeps_the_features(trained):
    features, calls = trained.features, []

    def should_stop():
        calls.append(1)
        return len(calls) > 2

    with pytest.raises(Cancelled):
        compute(trained.feature_request(), should_stop=should_stop)
    trained.drop_request()
    assert trained.features is features
    assert trained.status.startswith("Cancelled.")


def test_progress_reaches_its_end(session):
    heard = []
    session.progress_changed.connect(lambda *told: heard.append(told))
    session.compute_features()
    stage, done, total = heard[-1]
    assert stage == "Computing features"
    assert done == total > 0


def test_changing_the_settings_keeps_the_features_until_new_ones_are_there(trained):
    features = trained.features
    trained.configure(transforms="identity")
    assert trained.features is features
    assert trained.status.startswith("Segmented.")  # as auto is
    trained.configure(backbone="dinov2-small")
    assert trained.status == (
        "Result from embedded; press Compute features to use dinov2-small."
    )
    trained.configure(backbone="embedded")
    assert trained.status.startswith("Segmented.")


def test_listeners_hear_of_features_and_segmentation(session, labels):
    heard = []
    session.features_changed.connect(lambda: heard.append("features"))
    session.segmentation_changed.connect(lambda: heard.append("segmentation"))
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    assert heard == ["features", "segmentation", "segmentation"]


def test_an_image_of_nothing_but_holes_is_refused_in_one_sentence():
    session = Session()
    session.set_image(np.full((40, 40), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        session.compute_features()
    assert session.features is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("backbone", ["embedded", "filters"])
def test_holes_of_an_image_are_left_out(value, backbone):
    session = Session()
    session.configure(backbone=backbone)
    rows, columns = np.mgrid[:40, :60]
    image = np.where(columns < 30, 0.2, 0.8) + 0.01 * (rows % 3)
    image[:, 54:] = image[7, 8] = value  # such as the border of a registered image
    labels = np.zeros((40, 60), np.uint8)
    labels[4:30, 4:20], labels[4:30, 40:60] = 1, 2
    session.set_image(image)
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    assert session.current.counted.counts == {1: 26 * 16 - 1, 2: 26 * 14}
    shown = session.segmentation
    assert (shown == 0).sum() == 40 * 6 + 1
    assert (shown[:, :30] == 1).mean() > 0.98
    assert sum(session.phase_fractions().values()) == pytest.approx(1)
    assert session.phase_fractions()[1] == pytest.approx(1199 / 2159, abs=0.02)
    assert session.current.exclusion is None  # nobody drew one
    with pytest.raises(ValueError, match="leave nothing of the image"):
        session.set_exclusion(np.isfinite(image))
    session.set_exclusion(columns < 10)
    session.train()
    assert (session.segmentation == 0).sum() == 40 * (10 + 6)


def test_negative_labels_are_refused(session, labels):
    with pytest.raises(ValueError, match="-3 is negative"):
        session.set_scribbles(np.where(labels == 1, np.int16(-3), 0))


def test_classes_go_along_to_the_next_image(session, labels, image):
    session.set_scribbles(np.where(labels == 2, 4, labels))
    session.classes.ensure((), names={4: "pore"})
    session.set_image(255 - image, "another")
    assert list(session.classes) == [1, 2, 4]
    assert session.classes[4].name == "pore"


def test_fractions_come_with_the_segmentation(session, labels):
    session.set_scribbles(labels)
    session.compute_features()
    answer = compute(session.train_request())
    result = answer.images[0].result
    assert result.fractions[1] == np.mean(result.labels == 1)
    session.accept(answer)
    assert session.phase_fractions() == result.fractions


def test_coming_back_to_an_image_finds_all_as_it_was(trained, image):
    former = trained.current
    trained.set_image(255 - image, "another")
    assert trained.features is trained.segmentation is trained.scribbles is None
    trained.set_image(former.image, former.key)
    assert trained.current is former
    assert trained.status.startswith("Segmented.")


def test_scribbles_on_two_images_train_one_classifier(trained, image):
    labels = np.zeros((40, 48), np.uint8)
    labels[30:36, 4:12] = 3
    trained.set_image(255 - image, "another")
    trained.set_scribbles(labels)
    trained.compute_features()
    trained.train()
    assert trained.classifier.classes.tolist() == [1, 2, 3]
    assert "scribbles on 2 images" in trained.status
    trained.set_trains("another", False)
    trained.train()
    assert trained.classifier.classes.tolist() == [1, 2]


def test_features_of_a_painted_image_are_made_as_those_of_the_current_one(
    session, labels, image
):
    session.set_scribbles(labels)
    session.set_image(255 - image, "another")
    assert session.next_feature_request() is None  # nobody has chosen how yet
    session.configure(backbone="filters")
    session.compute_features()
    assert session.images["image"].options.backbone == "filters"
    session.train()
    assert session.classifier.classes.tolist() == [1, 2]


def test_images_of_other_channels_do_not_train_together(trained, image):
    trained.set_image(np.stack([image, 255 - image, image], -1), "colours")
    trained.compute_features()
    assert [str(entry.key) for entry in trained.images.painted()] == ["image"]
    assert trained.images.usable() == []
    assert trained.next_feature_request() is None


def test_what_is_excluded_neither_trains_nor_counts(trained, labels):
    mask = np.zeros((40, 48), bool)
    mask[:, 24:] = True
    trained.set_exclusion(mask)
    assert trained.train_request() is None
    assert trained.status.startswith("Only Class 1 has scribbles")
    mask[:30] = False
    trained.set_exclusion(mask)
    trained.train()
    assert not trained.segmentation[30:, 24:].any()
    shown = trained.segmentation[~mask]
    assert trained.phase_fractions()[1] == np.mean(shown == 1)


def test_nothing_can_be_left_of_an_image(trained):
    with pytest.raises(ValueError, match="would leave nothing"):
        trained.set_exclusion(np.ones((40, 48), bool))
    with pytest.raises(ValueError, match=r"shape \(4, 4\) is not that"):
        trained.set_exclusion(np.ones((4, 4), bool))


def test_merging_two_classes_relabels_the_scribbles_of_all_images(trained, image):
    labels = np.zeros((40, 48), np.uint8)
    labels[30:36, 4:12] = 3
    trained.set_image(255 - image, "another")
    trained.set_scribbles(labels)
    heard = []
    trained.relabelled.connect(heard.append)
    trained.merge_class(3, 1)
    assert heard == [trained.current.key]
    assert trained.scribbles.class_ids == (1,)
    assert list(trained.classes) == [1, 2]
    trained.delete_class(2)
    assert [str(key) for key in heard] == ["another", "image"]
    assert trained.images["image"].class_ids == (1,)


def test_a_large_image_shows_what_is_visible_first(trained, monkeypatch):
    monkeypatch.setattr("napari_hrdv2.session.pipeline._PREVIEWED", 0)
    visible, parts = (slice(3, 9), slice(20, 40)), []
    request = trained.train_request(force=True, visible=visible)
    result = compute(request, partial=parts.append)
    part, _ = parts
    whole = result.images[0].result.labels
    np.testing.assert_array_equal(part.labels, whole[visible])
    assert part.window == visible


def test_an_image_segmented_earlier_says_what_is_left_of_that(session, image):
    session.set_image(image, was_segmented=True)
    assert "features of this image were given up" in session.status
    session.compute_features()
    assert "given up" not in session.status


def test_without_a_layer_to_paint_on_the_status_says_how_to_get_one(trained):
    trained.set_scribbles(None)
    trained.train()
    assert trained.status == "Press Paint to make a scribble layer."


def test_other_pixels_under_the_same_name_are_trained_anew(trained, labels, image):
    former = trained.segmentation.copy()
    trained.set_image(image[:, ::-1].copy())
    trained.set_scribbles(labels)
    trained.compute_features()
    request = trained.train_request()
    assert len(request.training) == 1
    trained.accept(compute(request))
    assert (trained.segmentation[:, :20] == former[:, :20]).mean() > 0.9
    assert trained.segmentation[0, 0] == 1


def test_what_is_excluded_meanwhile_does_not_come_back(trained, labels):
    late = compute(trained.train_request(force=True))
    mask = np.zeros((40, 48), bool)
    mask[30:] = True
    trained.set_exclusion(mask)
    assert not trained.accept(late)
    trained.train()
    assert not trained.segmentation[30:].any()


def test_looking_at_an_image_without_features_keeps_the_classifier(trained, image):
    classifier = trained.classifier
    trained.set_image(255 - image, "another")
    trained.train()
    assert trained.classifier is classifier
    assert trained.status.startswith("Press Compute features")


def test_a_class_merges_into_another_one_only(trained):
    for into in (1, 9):
        with pytest.raises(ValueError, match="is no other class"):
            trained.merge_class(1, into)
    with pytest.raises(ValueError, match="7 is no class"):
        trained.delete_class(7)
    assert list(trained.classes) == [1, 2]


def test_the_former_classifier_gives_no_uncertainty_about_new_features(trained):
    trained.configure(backbone="filters")
    trained.compute_features()
    with pytest.raises(ValueError, match="There is no result yet"):
        trained.guidance.uncertainty_request()
