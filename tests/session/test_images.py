"""Many pictures, one classifier: which train, whose features are kept."""

from dataclasses import replace

import numpy as np
import pytest

from napari_hrdv2.session import Session, compute
from napari_hrdv2.session.planes import Plane


def show(session, image, place):
    key = f"stack/{place}"
    known = session.images.find(key)
    image = image if known is None else known.image
    session.set_image(image, key, plane={"Z": place}, name=f"stack, Z {place}")
    return session.current


def advance(session, ahead=()):
    """Compute what is wanted though nobody asked; return the keys."""
    keys = []
    while (request := session.next_feature_request(ahead)) is not None:
        keys.append(str(request.key))
        session.accept(compute(request))
    return keys


@pytest.fixture
def filters(image):
    session = Session()
    session.configure(backbone="filters")
    show(session, image, 0)
    return session


def test_a_plane_that_is_looked_at_gets_features_of_a_bundled_backbone(filters):
    assert advance(filters) == ["stack/0"]
    assert filters.features is not None


def test_an_image_that_is_no_plane_waits_for_the_user(image):
    session = Session()
    session.set_image(image)
    assert session.next_feature_request() is None


def test_a_plane_waits_where_the_backbone_must_be_fetched_first(image):
    session = Session()
    session.configure(backbone="dinov2-small")
    show(session, image, 0)
    assert session.next_feature_request() is None


def test_a_plane_gets_what_another_plane_was_computed_with(filters, image):
    filters.compute_features()
    made = filters.features
    filters.images["stack/0"].options = filters.options
    show(filters, 255 - image, 1)
    assert advance(filters) == ["stack/1"]
    assert filters.features.shape == made.shape


def test_neighbours_come_after_the_plane_that_is_looked_at(filters, image):
    for place in (1, 2):
        filters.images.add(255 - image, f"stack/{place}", plane={"Z": place})
    assert advance(filters, ["stack/1", "stack/2"]) == ["stack/0", "stack/1", "stack/2"]


def test_painted_planes_come_before_neighbours(filters, image, labels):
    for place in (1, 2):
        filters.images.add(255 - image, f"stack/{place}", plane={"Z": place})
    filters.set_scribbles(labels, "stack/2")
    assert advance(filters, ["stack/1"]) == ["stack/0", "stack/2", "stack/1"]


def test_features_that_were_called_off_are_not_asked_for_again_and_again(filters):
    assert filters.next_feature_request() is not None
    filters.drop_request()
    assert filters.next_feature_request() is None
    assert filters.feature_request() is not None  # but by hand


def test_coming_back_to_a_plane_tries_again(filters, image):
    filters.next_feature_request()
    filters.drop_request()
    show(filters, 255 - image, 1)
    assert advance(filters) == ["stack/1"]
    show(filters, None, 0)
    assert advance(filters) == ["stack/0"]


def test_a_painted_plane_that_fails_is_asked_for_once(filters, image, labels):
    broken = np.full(image.shape, np.nan)
    filters.images.add(broken, "stack/1", plane={"Z": 1})
    filters.set_scribbles(labels, "stack/1")
    advance_once = filters.next_feature_request()
    filters.accept(compute(advance_once))
    request = filters.next_feature_request()
    assert str(request.key) == "stack/1"
    with pytest.raises(ValueError, match="NaN"):
        compute(request)
    filters.drop_request("Failed.", "stack/1")
    assert filters.next_feature_request() is None


def test_all_planes_of_a_stack_map_their_grey_levels_alike(image):
    session = Session()
    session.configure(backbone="filters")
    show(session, image.astype(np.uint16) * 10, 0)
    with pytest.warns(UserWarning, match="own range 600"):
        advance(session)
    show(session, image.astype(np.uint16) * 10 // 2 + 700, 1)
    advance(session)
    first, second = (one.features.part_options[0] for one in session.images.values())
    assert first.value_range == second.value_range == (600.0, 1840.0)


def test_scribbles_on_all_planes_train_one_classifier(filters, image, labels):
    filters.set_scribbles(np.where(labels == 1, 1, 0))
    advance(filters)
    show(filters, image, 1)
    filters.set_scribbles(np.where(labels == 2, 2, 0))
    advance(filters)
    filters.train()
    assert filters.classifier.classes.tolist() == [1, 2]
    assert set(np.unique(filters.segmentation)) == {1, 2}


def test_the_longest_unused_features_go_first_and_never_the_current(filters, image):
    advance(filters)
    size = filters.features.nbytes
    filters._features.budget_bytes = 2 * size
    for place in (1, 2):
        show(filters, image + place, place)
        advance(filters)
    assert [str(key) for key in filters.images] == ["stack/1", "stack/2"]
    filters._features.budget_bytes = 0
    show(filters, image + 3, 3)
    advance(filters)
    assert [str(key) for key in filters.images] == ["stack/3"]
    assert filters.features is not None


def test_no_more_planes_are_computed_ahead_than_there_is_room_for(filters, image):
    advance(filters)
    filters._features.budget_bytes = 2 * filters.features.nbytes
    for place in (1, 2):
        filters.images.add(255 - image, f"stack/{place}", plane={"Z": place})
    assert advance(filters, ["stack/1", "stack/2"]) == ["stack/1"]


@pytest.fixture
def evict(filters, image, labels, monkeypatch):
    """A painted plane whose features had to go, and another one that is current."""
    # Of less than the whole of these small images.
    monkeypatch.setattr(
        "napari_hrdv2.core.features.sample_cache.BACKGROUND_PIXELS", 100
    )
    filters.set_scribbles(labels)
    advance(filters)
    filters._features.budget_bytes = 0
    show(filters, 255 - image, 1)
    advance(filters)
    return filters


def test_painted_pixels_train_without_their_features(evict, labels):
    entry = evict.images["stack/0"]
    assert entry.features is None
    assert entry.is_evicted
    evict.train()
    assert evict.classifier.classes.tolist() == [1, 2]
    assert evict.next_feature_request() is None


def test_training_without_the_features_gives_the_same_classifier(image, labels):
    weights = []
    for budget in (None, 0):
        session = Session()
        session.configure(backbone="filters")
        session._features.budget_bytes = budget
        show(session, image, 0)
        session.set_scribbles(labels)
        advance(session)
        show(session, 255 - image, 1)
        advance(session)
        assert (session.images["stack/0"].features is None) == (budget == 0)
        session.train()
        weights.append(session.classifier.weight)
    np.testing.assert_array_equal(*weights)


def test_more_scribbles_on_a_image_put_away_need_its_features_again(evict, labels):
    more = labels.copy()
    more[30:33, 4:9] = 2
    evict.set_scribbles(more, "stack/0")
    assert str(evict.next_feature_request().key) == "stack/0"


def test_fewer_scribbles_on_a_image_put_away_do_not(evict, labels):
    fewer = labels.copy()
    fewer[5, :] = 0
    evict.set_scribbles(fewer, "stack/0")
    assert evict.next_feature_request() is None
    evict.train()
    assert evict.classifier.classes.tolist() == [1, 2]


def test_visiting_a_image_put_away_computes_its_features(evict):
    show(evict, None, 0)
    assert advance(evict) == ["stack/0"]
    evict.train()
    assert evict.segmentation.any()


def test_putting_away_lets_the_pixels_of_a_plane_go(image):
    reads = []

    def read():
        reads.append(1)
        return image

    session = Session()
    session.configure(backbone="filters")
    show(session, Plane(read, image.shape, image.dtype), 0)
    advance(session)
    session.current.evict()
    np.asarray(session.image)
    assert len(reads) == 2


def test_what_remains_of_features_says_that_there_is_no_map(evict):
    known = evict.images["stack/0"].training_features
    assert known.nbytes > 0
    for use in (known.materialize, lambda: known.sample([0], [0])):
        with pytest.raises(ValueError, match="compute its features again"):
            use()


def test_what_remains_of_features_counts_against_the_memory(evict):
    remains = evict.images["stack/0"].nbytes
    size = evict.features.nbytes
    assert remains >= 100 * evict.features.shape[0] * 4
    evict._features.budget_bytes = 2 * size + remains - 1
    evict.images.add(255 - np.asarray(evict.image), "stack/2", plane={"Z": 2})
    assert advance(evict, ["stack/2"]) == []
    evict._features.budget_bytes += 1
    assert advance(evict, ["stack/2"]) == ["stack/2"]


def test_a_loaded_range_of_grey_levels_stays_within_a_stack(filters, image):
    filters.configure(value_range=(0.0, 200.0))
    show(filters, 255 - image, 1)
    assert filters.options.value_range == (0.0, 200.0)
    filters.set_image(image, "another")
    assert filters.options.value_range is None


def test_leaving_one_image_out_scores_each_by_the_others(filters, image, labels):
    for place in (0, 1, 2):
        show(filters, image + place, place)
        filters.set_scribbles(labels)
        advance(filters)
    result = compute(filters.guidance.validation_request())
    assert [str(key) for key in result.scores] == ["stack/0", "stack/1", "stack/2"]
    assert all(score.miou > 0.9 for score in result.scores.values())
    assert result.mean == pytest.approx(
        np.mean([score.miou for score in result.scores.values()])
    )
    assert "Planes of one stack resemble each other" in result.text


def test_one_painted_image_cannot_be_scored(filters, labels):
    filters.set_scribbles(labels)
    advance(filters)
    with pytest.raises(ValueError, match="paint on another"):
        filters.guidance.validation_request()


def test_images_without_features_ask_for_them_before_the_score(image, labels):
    session = Session()
    for key in ("a", "b"):
        session.set_image(image.copy(), key)
        session.set_scribbles(labels)
    with pytest.raises(ValueError, match="compute features first"):
        session.guidance.validation_request()


def test_a_image_that_does_not_train_is_not_scored(filters, image, labels):
    for place in (0, 1, 2):
        show(filters, image + place, place)
        filters.set_scribbles(labels)
        advance(filters)
    filters.set_trains("stack/1", False)
    scores = compute(filters.guidance.validation_request()).scores
    assert [str(key) for key in scores] == [
        "stack/0",
        "stack/2",
    ]


def test_features_of_another_image_do_not_cost_the_fit_that_is_on_its_way(
    trained, image
):
    trained.images.add(255 - image, "other")
    fit = trained.train_request(force=True)
    assert trained.accept(compute(trained.feature_request("other")))
    assert trained.accept(compute(fit))
    assert trained.classifier is not None
    assert trained.current.result.classifier is trained.classifier


def painted(image, name, columns=(2, 40), classes=(1, 2)):
    labels = np.zeros(image.shape[:2], np.uint8)
    for column, label in zip(columns, classes, strict=True):
        labels[4:10, column : column + 6] = label
    return {"image": image, "key": name, "labels": labels}


def with_scribbles(*pictures):
    session = Session()
    session.configure(backbone="filters")
    for one in pictures:
        session.set_image(one["image"], one["key"], name=one["key"])
        session.set_scribbles(one["labels"])
    session.compute_features()
    session.train()
    return session


def test_scribbles_on_the_other_kind_of_image_are_told(image):
    colors = np.dstack([image, image // 2, 255 - image])
    session = with_scribbles(painted(colors, "stain"), painted(image, "steel"))
    told = "The scribbles on stain do not count here: grey and colour images"
    assert session.status.startswith("Segmented.")
    assert told in session.status
    assert [one.name for one in session.live.of_other_kind()] == ["stain"]
    session.set_image(colors, "stain")
    session.train()
    assert told.replace("stain", "steel") in session.status
    session.set_trains("steel", False)
    assert "do not count" not in session.next_step()


def test_images_that_are_upsampled_in_two_ways_do_not_train_together(image):
    """As `auto` has it of a Vision Transformer, of a whole image and in blocks."""
    session = with_scribbles(painted(image, "part"), painted(image.T.copy(), "mosaic"))
    assert len(session.images.usable()) == 2
    features = session.current.features
    made = tuple(replace(p, interpolation="bilateral") for p in features.part_options)
    features.part_options = made
    assert [one.name for one in session.images.usable()] == ["mosaic"]
    assert "nor a whole image with one in blocks" in session.next_step()


def test_the_missing_class_on_the_other_kind_of_image_is_told(image):
    colors = np.dstack([image, image // 2, 255 - image])
    session = with_scribbles(
        painted(colors, "stain", (40,), (2,)), painted(image, "steel", (2,), (1,))
    )
    assert session.status.startswith("Only Class 1 has scribbles")
    assert "The scribbles on stain do not count here" in session.status


@pytest.mark.parametrize("alpha", [False, True])
def test_grey_stored_as_colours_trains_with_grey(image, alpha):
    bands = [image] * 3 + [np.full_like(image, 255)] * alpha
    stored = painted(np.dstack(bands), "stored", (40,), (2,))
    session = with_scribbles(stored, painted(image, "plain", (2,), (1,)))
    assert session.status.startswith("Segmented")
    assert "do not count" not in session.status
    assert session.segmentation[20, [3, 45]].tolist() == [1, 2]


def test_planes_of_a_stack_that_is_grey_in_colours_are_grey(image):
    session = with_scribbles(painted(image, "plain"))
    bands = np.dstack([image] * 3)
    plane = Plane(lambda: bands, bands.shape, bands.dtype)
    session.set_image(plane, "stack/0", plane={"Z": 0}, name="plane")
    session.set_scribbles(np.zeros(image.shape, np.uint8))
    session.compute_features()
    session.train()
    assert "Segmented, by the scribbles on another image" in session.status


def test_scribbles_at_another_magnification_are_told(image):
    session = with_scribbles(painted(image, "fine"))
    session.current.pixel_size = (250.0, "nm")
    session.set_image(image + 0, "coarse", name="coarse", pixel_size=(2.5, "µm"))
    session.set_scribbles(np.zeros(image.shape, np.uint8))
    session.compute_features()
    session.train()
    assert "10 times as large as those of the training" in session.status
    assert "Apply to many" not in session.status  # which does not bring it so far
    session.current.pixel_size = (0.5, "µm")
    assert (
        "2 times as large as those of the training (0.5 µm, 250 nm); Apply to many "
        "brings it to them." in session.next_step()
    )
    session.current.pixel_size = (300.0, "nm")
    assert "times" not in session.next_step()
    session.current.pixel_size = None
    assert "times" not in session.next_step()


def test_scribbles_at_two_magnifications_are_told(image):
    session = with_scribbles(painted(image, "fine"), painted(image, "coarse"))
    assert session.current.name == "coarse"
    session.train()
    sizes = {"fine": (250.0, "nm"), "coarse": (0.5, "µm")}
    for key, size in sizes.items():
        session.images[key].pixel_size = size
    assert session.named_classifier().pixel_size == (250.0, "nm")
    assert "2 times as large as those of the training" in session.next_step()


def test_a_loaded_classifier_tells_of_another_magnification(image, tmp_path):
    session = with_scribbles(painted(image, "fine"))
    session.current.pixel_size = (250.0, "nm")
    session.save_classifier(tmp_path / "c.safetensors")
    other = Session()
    other.configure(backbone="filters")
    other.set_image(image, pixel_size=(50.0, "nm"))
    other.load_classifier(tmp_path / "c.safetensors")
    other.compute_features()
    other.train()
    assert other.status.startswith("Segmented by the loaded classifier.")
    assert "5 times smaller than those of the training" in other.status
    other.save_classifier(tmp_path / "again.safetensors")
    assert other.named_classifier().pixel_size == (250.0, "nm")


def test_a_classifier_has_the_pixel_size_that_it_was_trained_at(image):
    session = with_scribbles(painted(image, "fine"))
    session.current.pixel_size = (250.0, "nm")
    session.set_image(image + 0, "coarse", pixel_size=(2.5, "µm"))
    session.compute_features()
    session.train()
    assert session.named_classifier().pixel_size == (250.0, "nm")


def test_channels_are_computed_only_by_the_names_that_an_image_has() -> None:
    maps = np.random.default_rng(0).random((40, 44, 3))
    session = Session()
    session.configure(backbone="filters", channels="BSE, Fe ,Si")
    assert session.options.channels == "BSE,Fe,Si"
    for about, told in (({}, "none"), ({"channels": "Si,Fe,BSE"}, "Si,Fe,BSE")):
        session.set_image(maps.copy(), "maps", **about)
        with pytest.raises(ValueError, match=f"maps has {told}, and BSE,Fe,Si are"):
            session.compute_features()
    session.set_image(maps, "maps", channels="BSE,Fe,Si")
    session.compute_features()
    assert [one.channel for one in session.features.part_options] == ["BSE", "Fe", "Si"]
