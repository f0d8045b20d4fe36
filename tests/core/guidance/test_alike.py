from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import disk

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.classifier.background import PLAIN_WHITENING, PCACoordinates
from napari_hrdv2.core.guidance.alike import (
    APART,
    alike_places,
    highest_places,
    similar_to,
)

SHAPE = (37, 53)  # of patches of 4 px, not whole ones


def random_features(seed: int, shape: tuple[int, int] = SHAPE) -> HighResFeatures:
    rng = np.random.default_rng(seed)
    grid = tuple(-(-length // 4) for length in shape)
    tokens = rng.normal(size=(1, *grid, 6)).astype(np.float32)
    tokens *= np.arange(1, 7, dtype=np.float32)
    return HighResFeatures(tokens, "identity", shape, 4, 4)


def test_similarity_is_the_product_with_the_mean_of_a_disc() -> None:
    import torch

    many = [random_features(0), random_features(1)]
    dense = [one.materialize() for one in many]
    found = similar_to(many, 20, 30, image=1)
    rows = np.concatenate([one.samples.background(1000) for one in many])
    coordinates = PCACoordinates.of(torch.from_numpy(rows), None)
    stretch = coordinates.variances.numpy() ** (-PLAIN_WHITENING / 2)

    def points(vectors: np.ndarray) -> np.ndarray:
        scaled = (vectors - rows.mean(0)) / rows.std(0)
        return scaled @ coordinates.directions.numpy() * stretch

    query = points(dense[1][:, *disk((20, 30), 4.5)].mean(1)[None])[0]
    for one, vectors in zip(many, dense, strict=True):
        slow = points(vectors.reshape(6, -1).T) @ query / (query @ query)
        np.testing.assert_allclose(found.of(one).ravel(), slow, atol=1e-4)
    disc = found.of(many[1])[disk((20, 30), 4.5)]
    assert disc.mean() == pytest.approx(1, abs=1e-4)


def test_a_disc_at_the_corner_is_cut_there() -> None:
    features = random_features(2)
    for place in ((0, 0), (36, 52)):
        assert similar_to([features], *place).of(features)[place] > 0


def test_a_place_like_all_others_or_outside_is_refused() -> None:
    tokens = np.ones((1, 10, 12, 3), np.float32)
    even = HighResFeatures(tokens, "identity", (20, 24), 2, 2)
    for features, place in ((even, (4, 5)), (random_features(3), (50, 0))):
        with pytest.raises(ValueError, match=f"nothing at {place[0]}, {place[1]}"):
            similar_to([features], *place)


def test_the_highest_places_are_apart_from_each_other() -> None:
    values = np.zeros((60, 70), np.float32)
    values[8:17, 10:19] = 0.5  # 9 px wide, as the disc's square
    values[40:49, 50:59] = 0.9
    assert highest_places(values, 2) == [(44, 54), (12, 14)]
    noise = np.random.default_rng(0).random((84, 90), np.float32)
    there = np.array(highest_places(noise, 10))
    assert len(there) == 10
    apart = abs(there[:, None] - there).max(-1)
    assert apart[~np.eye(10, dtype=bool)].min() >= APART
    flat = highest_places(np.ones((40, 40), np.float32), 4)
    assert flat == [(0, 0), (0, 16), (0, 32), (16, 0)]


def test_taken_places_and_nan_are_left_out() -> None:
    values = np.zeros((40, 100), np.float32)
    values[20, 20], values[20, 80] = 9, 7
    values[:, 40:60] = np.nan
    ((row, column),) = highest_places(values, 1, [(20, 20)])
    assert max(abs(row - 20), abs(column - 80)) <= 4
    assert highest_places(np.full((5, 5), np.nan, np.float32), 3) == []


def test_places_on_all_images_are_listed_by_their_cosine() -> None:
    many = [random_features(0), random_features(1)]
    similarity = similar_to(many, 20, 30, image=1)
    assert similarity.cosines(many[1], [(20, 30)]) == pytest.approx(1, abs=1e-5)
    maps = [similarity.of(one) for one in many]
    masks = [None, np.zeros(SHAPE, bool)]
    masks[1][:, :20] = True
    places = alike_places(similarity, many, maps, exclusion=masks, query=(1, 20, 30))
    assert len({place.image for place in places}) == 2
    values = [place.similarity for place in places]
    assert values == sorted(values, reverse=True)
    for image, row, column, value in places:
        (cosine,) = similarity.cosines(many[image], [(row, column)])
        assert value == pytest.approx(cosine, abs=1e-5)
        if image == 1:
            assert column >= 20
            assert max(abs(row - 20), abs(column - 30)) >= APART
    assert alike_places(similarity, many, maps, count=3) != places[:3]  # the query
