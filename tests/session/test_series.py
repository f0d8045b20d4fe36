"""The classifier for other images, trained when it is wanted."""

import numpy as np
import pytest

from napari_hrdv2.session import Session, compute
from synthetic import dabs, discs


@pytest.fixture
def session():
    """Two painted images, of which the second is brighter."""
    session = Session()
    for name, seed, offset in (("a", 0, 0), ("b", 3, 40)):
        image, inside = discs(0.25, seed, offset=offset)
        session.set_image(image, name)
        session.set_scribbles(dabs(inside, seed))
        session.compute_features()
    session.train()
    return session


def trained(session):
    request = session.series.request()
    session.series.accept(request, compute(request))
    return session.series.classifier


def test_it_is_trained_once_for_the_scribbles_as_they_are(session):
    live = session.classifier
    assert session.series.classifier is None
    made = trained(session)
    assert made.normalisation.kind == "matched"
    assert "images predict each other" in made.normalisation.reason
    assert made.trained_on is not None
    assert session.classifier is live
    assert session.series.request() is None
    labels = session.scribbles.labels.copy()
    labels[60:63, 60:63] = 1
    session.set_scribbles(labels)
    session.train()
    assert session.series.request() is not None
    assert session.series.classifier is None


def test_where_images_keep_their_levels_it_is_the_session_s_own(session):
    session.configure(normalisation="image")
    made = trained(session)
    assert np.array_equal(made.weight, session.classifier.weight)
    assert made.normalisation.reason == "chosen"
    assert made.trained_on is not None


def test_a_stroke_that_was_not_trained_on_yet_counts(session):
    session.configure(normalisation="image")
    labels = session.scribbles.labels.copy()
    labels[:6, :40] = 3
    session.set_scribbles(labels)
    made = compute(session.series.request())  # before the session's own fit
    assert made.classes.tolist() == [1, 2, 3]
    assert made.labels_hash != session.classifier.labels_hash


def test_images_of_two_pixel_sizes_are_seen_with_the_finer_one(session):
    session.configure(normalisation="image")
    alike = trained(session)
    assert np.array_equal(alike.weight, session.classifier.weight)
    session.images["a"].pixel_size = (0.5, "µm")
    session.images["b"].pixel_size = (250.0, "nm")
    assert session.series.classifier is None  # sizes count like scribbles
    request = session.series.request()
    assert request.pixel_ratios == ((2.0, 2.0), (1.0, 1.0))
    assert request.known[0] is None
    assert request.known[1] is session.images["b"].features
    made = trained(session)
    assert not np.array_equal(made.weight, alike.weight)
    assert session.named_classifier(made).pixel_size == (250.0, "nm")
    session.images["a"].pixel_size = (260.0, "nm")  # next to nothing
    assert np.array_equal(trained(session).weight, session.classifier.weight)


def test_it_says_what_it_takes_before_it_starts(session):
    text = session.series.request().text
    assert text.startswith("Training for the series on features of 2 images (")
    assert "MB" in text


def test_an_image_that_was_just_opened_is_no_hindrance(session):
    session.set_image(discs(0.25, 5)[0], "new")
    assert session.features is None
    assert trained(session).normalisation.kind == "matched"


def test_a_loaded_classifier_is_used_as_it_is(session, tmp_path):
    made = trained(session)
    session.save_classifier(tmp_path / "c.safetensors", made)
    session.load_classifier(tmp_path / "c.safetensors")
    assert session.series.request() is None
    assert session.series.classifier is session.classifier
    assert session.classifier.normalisation == made.normalisation


def test_without_a_classifier_there_is_nothing_to_train():
    assert Session().series.request() is None
    assert Session().series.classifier is None


def test_filters_see_grey_levels_as_they_are_and_nothing_is_computed(session):
    session.configure(backbone="filters")
    session.compute_features()
    session.train()
    made = trained(session)
    assert made.normalisation.kind == "image"
    assert np.array_equal(made.weight, session.classifier.weight)


def test_the_methods_paragraph_says_which_and_why(session, tmp_path):
    from napari_hrdv2.session.export import export_all

    export_all(session, tmp_path, formats=["script"])
    text = next(tmp_path.glob("*methods*")).read_text()
    assert "standardised by their own mean and standard deviation." in text
    assert "(normalisation" not in text
    assert "aligned" not in text
    made = trained(session)
    export_all(session, tmp_path, formats=["script"], replace=True)
    text = next(tmp_path.glob("*methods*")).read_text()
    assert f"(normalisation matched, {made.normalisation.reason})" in text
    assert "adapted to each new image, whose features are aligned." in text


def test_the_choice_is_kept_by_a_project(session, tmp_path):
    from napari_hrdv2.session.project.snapshot import project_of, restore
    from napari_hrdv2.session.project.store import load_project, save_project

    session.configure(normalisation="shared")
    path = save_project(project_of(session), tmp_path / "p.hrdv2")
    other = Session()
    restore(other, load_project(path))
    assert other.options.normalisation == "shared"
