"""Colours, clusters and alike places of the images of a session."""

import numpy as np
import pytest

from napari_hrdv2 import block_features, load_backbone
from napari_hrdv2.session import Session, compute


def two_halves(shape, seed):
    """Return an image of dark on the left and bright on the right, with some noise."""
    rng = np.random.default_rng(seed)
    image = np.where(np.arange(shape[1]) < shape[1] // 2, 60, 180)
    return (image + rng.integers(0, 9, shape)).astype(np.uint8)


@pytest.fixture
def session():
    made = Session()
    made.configure(backbone="filters")
    for name, shape in (("a", (41, 52)), ("b", (33, 60))):
        made.set_image(two_halves(shape, 0), name)
        made.compute_features()
    made.set_image(made.images["a"].image, "a")
    return made


def find_clusters(session, count=2):
    found = compute(session.looking.clusters_request(count))
    assert session.looking.accept(found)
    assert session.looking.clusters is found
    return found


def test_an_id_means_the_same_on_all_images(session):
    found = find_clusters(session)
    assert [str(key) for key in found.maps] == ["a", "b"]
    sides = []
    for key, labels in found.maps.items():
        assert labels.shape == session.images[key].shape
        middle = labels.shape[1] // 2
        for part in (labels[:, : middle - 6], labels[:, middle + 6 :]):
            counts = np.bincount(part.ravel(), minlength=3)
            assert counts.max() > 0.9 * part.size
            sides.append(int(counts.argmax()))
    assert sides in ([1, 2, 1, 2], [2, 1, 2, 1])
    assert sum(found.shares.values()) == pytest.approx(1)


def test_what_is_left_out_has_no_cluster_no_colour_and_no_place(session):
    mask = np.zeros((41, 52), bool)
    mask[:, :20] = True
    session.set_exclusion(mask, "a")
    key = session.images["a"].key
    assert (find_clusters(session).maps[key][mask] == 0).all()
    assert (compute(session.looking.colors_request()).maps[key][mask] == 0).all()
    alike = compute(session.looking.alike_request(20, 40))
    there = [one for one in alike.places if alike.key_of(one) == key]
    assert not any(mask[one.row, one.column] for one in there)


def test_images_with_other_features_do_not_take_part(session):
    assert len(session.looking.joint_images()) == 2
    session.images["b"].set_features(None, None)
    assert [one.key.image for one in session.looking.joint_images()] == ["a"]


def test_the_foreground_is_one_of_the_halves_of_all_images(session):
    mask = np.zeros((41, 52), bool)
    mask[:9] = True
    session.set_exclusion(mask, "a")
    maps = compute(session.looking.foreground_request()).maps
    a, b = (maps[session.images[name].key] for name in ("a", "b"))
    assert not a[:9].any()
    assert a[20, 5] == b[20, 5] != a[20, 48] == b[20, 55]
    assert {*np.unique(a), *np.unique(b)} == {0, 1}


def test_saliency_is_of_each_image_by_itself(session):
    from napari_hrdv2.core.guidance.tokens import METHODS, token_saliency

    mask = np.zeros((33, 60), bool)
    mask[:, 40:] = True
    session.set_exclusion(mask, "b")
    for method in METHODS:
        look = compute(session.looking.saliency_request(method))
        for name, left_out in (("a", None), ("b", mask)):
            entry = session.images[name]
            slow = token_saliency(entry.features, method, exclusion=left_out)
            if left_out is not None:
                slow[left_out] = 0
            np.testing.assert_array_equal(look.maps[entry.key], slow)


def test_pairs_have_discs_of_one_number_on_both_images(session):
    look = compute(session.looking.pairs_request())
    assert len(look.places) % 2 == 0
    for number, place in enumerate(look.places):
        assert place.image == number % 2
        drawn = look.maps[look.key_of(place)]
        assert (drawn == number // 2 + 1).any()
    for one, other in zip(look.places[::2], look.places[1::2], strict=True):
        assert one.similarity == other.similarity
        assert (one.column < 26) == (other.column < 30)  # dark is like dark
    assert session.looking.accept(look)
    session.remove_image("b")
    with pytest.raises(ValueError, match="correspondences: open a second image"):
        session.looking.pairs_request()


def test_places_are_like_the_one_that_was_clicked(session):
    alike = compute(session.looking.alike_request(20, 8))
    assert len(alike.places) > 2
    for place in alike.places[:4]:
        assert place.column < session.images[alike.key_of(place)].shape[1] // 2
    values = [place.similarity for place in alike.places]
    assert values == sorted(values, reverse=True)


def test_clusters_keep_their_names_when_their_number_changes(session):
    found = find_clusters(session, 2)
    key = session.images["a"].key
    left = int(found.maps[key][20, 8])
    found.classes[left] = 2
    former = found.named(key)
    assert former[20, 8] == 2
    assert former[20, 44] == 0
    more = find_clusters(session, 6)
    assert set(more.classes.values()) == {2}
    assert (more.named(key) == former).mean() > 0.9
    more.classes.clear()
    assert not more.named(key).any()


def test_named_clusters_become_scribbles_beside_what_is_painted(session):
    found = find_clusters(session, 6)
    key = session.images["a"].key
    painted = np.zeros((41, 52), np.uint8)
    painted[10:30, 5:9] = 1
    session.set_scribbles(painted, "a")
    with pytest.raises(ValueError, match="clusters: none has a name yet"):
        session.looking.discs_request()
    left = set(np.unique(found.maps[key][:, :20]).tolist())
    found.classes.update(dict.fromkeys(left, 1))  # merged, too
    found.classes.update(dict.fromkeys(set(found.shares) - left, 2))
    answer = compute(session.looking.discs_request())
    discs = session.looking.paintable(answer)
    assert set(discs) == set(found.maps)
    for one, drawn in discs.items():
        assert set(np.unique(drawn)) == {0, 1, 2}
        assert (drawn[drawn > 0] == found.named(one)[drawn > 0]).all()
    assert not discs[key][painted > 0].any()
    session.images["b"].set_scribbles(np.ones((33, 60), int))
    assert set(session.looking.paintable(answer)) == {key}  # painted meanwhile
    session.remove_image(key)
    assert session.looking.paintable(answer) == {}


def test_maps_of_what_has_changed_meanwhile_are_forgotten(session):
    looking, (a, _) = session.looking, session.images
    find_clusters(session)
    former, late = looking.clusters, compute(looking.clusters_request(3))
    session.images["b"].set_features(session.images["b"].features, session.options)
    assert looking.accept(late)
    assert set(late.maps) == {a}
    late = compute(looking.clusters_request(4))
    session.set_image(session.images["a"].image.copy(), "a")  # other pixels
    session.remove_image("b")
    assert not looking.accept(late)
    assert looking.clusters is not late
    former.classes[1] = 1
    assert looking.paintable(former) == {}
    assert looking.clusters is None


def test_names_stay_with_pixels_of_the_same_picture_only(session):
    found = find_clusters(session)
    found.classes.update({1: 1, 2: 2})
    for key in list(session.images):
        entry = session.images[key]
        session.set_image(entry.image.copy(), key)
        session.compute_features()
    assert find_clusters(session, 3).classes == {}


@pytest.mark.parametrize("count", [1, 51])
def test_too_few_or_many_clusters_are_refused(session, count):
    with pytest.raises(ValueError, match="clusters are not from 2 to 50"):
        session.looking.clusters_request(count)


def test_features_in_blocks_are_not_all_computed(session):
    a, b = (session.images[name] for name in ("a", "b"))
    backbone = load_backbone("filters")
    b.set_features(block_features(b.image, backbone), b.options)
    assert session.looking.joint_images() == [a]
    a.set_features(block_features(a.image, backbone), a.options)
    with pytest.raises(
        ValueError, match="too large to be looked at as a whole; open a part"
    ):
        session.looking.colors_request()


def test_without_features_the_reason_is_told():
    session = Session()
    assert session.images.why_not_together() == "open an image first"
    session.set_image(two_halves((20, 20), 0))
    with pytest.raises(ValueError, match="clusters: compute features first"):
        session.looking.clusters_request(3)


def test_pixels_without_values_are_left_out():
    image = two_halves((41, 52), 0) / np.float32(255)
    image[:5, :7] = np.nan
    session = Session()
    session.configure(backbone="filters")
    session.set_image(image)
    session.compute_features()
    (labels,) = find_clusters(session).maps.values()
    assert (labels[:5, :7] == 0).all()
    assert (labels[6:] > 0).all()
    (colors,) = compute(session.looking.colors_request()).maps.values()
    assert (colors[:5, :7] == 0).all()
    alike = compute(session.looking.alike_request(30, 8))
    assert not any(row < 5 and column < 7 for _, row, column, _ in alike.places)
