from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.classifier.background import PCACoordinates
from napari_hrdv2.core.classifier.clusters import (
    find_clusters,
    hungarian_names,
    majority_names,
)

SHAPE = (24, 30)


def blocky(seed: int) -> tuple[HighResFeatures, np.ndarray]:
    """Features of three kinds of token in blocks of 2 × 2 pixels, and the kinds."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, (12, 15))
    means = np.array([[0, 0, 9, 1], [8, 0, 0, 1], [0, 7, 0, 1]], np.float32)
    tokens = means[kinds] + rng.normal(0, 0.2, (12, 15, 4)).astype(np.float32)
    features = HighResFeatures(tokens[None], "identity", SHAPE, 2, 2, "nearest")
    return features, kinds.repeat(2, 0).repeat(2, 1)


def test_clusters_are_what_the_image_is_made_of() -> None:
    features, kinds = blocky(0)
    found = find_clusters(features, 3).predict(features)
    pairs = set(zip(found.ravel().tolist(), kinds.ravel().tolist(), strict=True))
    assert len(pairs) == 3


def test_the_cluster_of_a_pixel_has_the_nearest_centre() -> None:
    features, _ = blocky(1)
    clusters = find_clusters(features, 5)
    vectors = features.materialize().reshape(4, -1).T
    rows = features.samples.background(2000)
    import torch

    coordinates = PCACoordinates.of(torch.from_numpy(rows), None)
    points = coordinates(torch.from_numpy(vectors))[:-1].T.numpy()
    found = clusters.predict(features).ravel()
    from sklearn.cluster import KMeans

    means = KMeans(5, n_init=5, random_state=0)
    means.fit(coordinates(torch.from_numpy(rows))[:-1].T.numpy())
    distances = ((points[:, None] - means.cluster_centers_) ** 2).sum(-1)
    assert (distances.argmin(1) == found).mean() > 0.999


def test_clusters_are_the_same_twice_and_joint_over_images() -> None:
    (first, kinds), (second, others) = blocky(2), blocky(3)
    one, two = (find_clusters([first, second], 3) for _ in range(2))
    np.testing.assert_array_equal(one.predict(first), two.predict(first))
    named = {}
    for features, truth in ((first, kinds), (second, others)):
        for cluster, kind in zip(
            one.predict(features).ravel(), truth.ravel(), strict=True
        ):
            assert named.setdefault(cluster, kind) == kind


def test_names_are_the_best_of_all_assignments() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        confusion = rng.integers(0, 50, (4, 4))
        total = confusion.sum(1, keepdims=True) + confusion.sum(0) - confusion
        iou = confusion / total
        best = max(
            sum(iou[k, order[k]] for k in range(4))
            for order in itertools.permutations(range(4))
        )
        names = hungarian_names(confusion)
        assert sum(iou[np.arange(4), names]) == pytest.approx(best)


def test_more_clusters_than_classes_share_names_or_have_none() -> None:
    confusion = np.array([[9, 0], [8, 1], [0, 7]])
    assert majority_names(confusion).tolist() == [0, 0, 1]
    assert sorted(hungarian_names(confusion).tolist()) == [-1, 0, 1]
