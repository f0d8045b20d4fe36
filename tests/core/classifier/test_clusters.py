from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.classifier.background import PCACoordinates
from napari_hrdv2.core.classifier.clusters import (
    deepest_discs,
    find_clusters,
    hungarian_names,
    majority_names,
    principal_colors,
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


def mixed(seed: int, shape: tuple[int, int]) -> HighResFeatures:
    """Features of an image that patches of 4 px do not divide."""
    rng = np.random.default_rng(seed)
    grid = tuple(-(-length // 4) for length in shape)
    tokens = rng.normal(size=(1, *grid, 7)).astype(np.float32)
    tokens *= np.arange(1, 8, dtype=np.float32)
    return HighResFeatures(tokens, "identity", shape, 4, 4)


def test_colours_equal_brute_force_on_the_whole_map() -> None:
    many = [mixed(0, (37, 53)), mixed(1, (22, 41))]
    colors = principal_colors(many)
    rows = np.concatenate([one.samples.background(1000) for one in many])
    scaled = (rows - rows.mean(0)) / rows.std(0)
    _, axes = np.linalg.eigh(scaled.T @ scaled)
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.sign(axes[abs(axes).argmax(0), range(3)])
    low, high = np.percentile(scaled @ axes, (2, 98), axis=0)
    for one in many:
        vectors = one.materialize().reshape(7, -1).T
        slow = ((vectors - rows.mean(0)) / rows.std(0) @ axes - low) / (high - low)
        slow = 255 * slow.clip(0, 1).reshape(*one.shape[1:], 3)
        painted = colors.paint(one)
        assert painted.dtype == np.uint8
        assert abs(painted - slow).max() <= 0.51
        assert painted.min() == 0
        assert painted.max() == 255


def test_joint_clusters_equal_brute_force_on_the_whole_maps() -> None:
    many = [mixed(2, (37, 53)), mixed(3, (22, 41))]
    clusters = find_clusters(many, 6)
    weight, bias = (one.numpy() for one in clusters.model)
    for one in many:
        values = np.einsum("kc,chw->khw", weight, one.materialize())
        values += bias[:, None, None]
        ordered = np.sort(values, 0)
        clear = ordered[-1] - ordered[-2] > 1e-4
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(
            clusters.predict(one)[clear], values.argmax(0)[clear]
        )


def test_a_constant_image_is_one_cluster_and_half_of_each_colour() -> None:
    tokens = np.full((1, 6, 7, 3), 0.3, np.float32)
    features = HighResFeatures(tokens, "identity", (11, 13), 2, 2)
    assert np.unique(find_clusters(features, 5).predict(features)).tolist() == [0]
    assert np.unique(principal_colors(features).paint(features)).tolist() == [128]


def test_fewer_than_three_components_leave_colours_at_half() -> None:
    tokens = np.random.default_rng(0).normal(size=(1, 9, 9, 1)).astype(np.float32)
    features = HighResFeatures(tokens, "identity", (9, 9), 1, 1)
    painted = principal_colors(features).paint(features)
    assert len(np.unique(painted[..., 0])) > 20
    assert np.unique(painted[..., 1:]).tolist() == [128]


def test_excluded_and_nan_pixels_do_not_count() -> None:
    features, kinds = blocky(5)
    dense = torch.from_numpy(features.materialize()).movedim(0, -1)[None].clone()
    dense[0, :8] = 1000.0
    dense[0, 8, 0] = float("nan")
    spoilt = HighResFeatures(dense, "identity", SHAPE, 1, 1)
    mask = np.zeros(SHAPE, bool)
    mask[:8] = True
    found = find_clusters(spoilt, 3, exclusion=[mask]).predict(spoilt)[9:]
    pairs = set(zip(found.ravel().tolist(), kinds[9:].ravel().tolist(), strict=True))
    assert len(pairs) == 3
    painted = principal_colors([spoilt], exclusion=[mask]).paint(spoilt)
    assert (painted[8, 0] == 0).all()  # NaN
    assert len(np.unique(painted[9:])) > 20
    with pytest.raises(ValueError, match="all pixels are excluded or NaN"):
        find_clusters(features, 3, exclusion=[np.ones(SHAPE, bool)])
    with pytest.raises(ValueError, match=r"features: of \[4, 7\] channels"):
        find_clusters([features, mixed(0, (20, 20))], 3)
    with pytest.raises(ValueError, match="exclusion: 1 masks for 2 images"):
        principal_colors([features, spoilt], exclusion=[mask])


def test_discs_are_deep_inside_their_label_and_spread() -> None:
    labels = np.zeros((60, 81), np.uint8)
    labels[:, :40], labels[:30, 40:], labels[40, 45:70] = 1, 3, 4
    drawn = deepest_discs(labels, count=5, radius=4)
    assert set(np.unique(drawn)) == {0, 1, 3, 4}
    assert (drawn[drawn > 0] == labels[drawn > 0]).all()
    rows, columns = np.nonzero(drawn == 1)
    assert np.ptp(rows) > 40
    assert columns.max() < 39  # deep, not at the border
    assert (drawn == 1).sum() > 100
    assert (drawn == 4).sum() == 5  # a line is only one pixel deep


def test_a_label_that_is_all_of_the_image_has_discs_too() -> None:
    drawn = deepest_discs(np.full((40, 50), 2), count=3, radius=2)
    assert 20 < (drawn == 2).sum() <= 3 * 21
