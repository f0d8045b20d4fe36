"""Superpixels: what the reference computes, without its chance and its collapse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import label as pieces_of
from sklearn.metrics import adjusted_rand_score

from napari_hrdv2.core.backbones.superpixels import (
    borders,
    boxes_of,
    hierarchy,
    numbered,
    pca_tree,
    squares,
    superpixels,
)
from napari_hrdv2.core.backbones.superpixels.pixels import (
    pixel_features,
    vertex_features,
)

STORED = np.load(Path(__file__).parents[3] / "fixtures" / "spit" / "spit_io.npz")
IMAGES = ("grains", "stain")
COMPACTNESS = {"grad": 0.0, "nograd": 0.1}


def stored_image(name):
    return torch.from_numpy(STORED[f"{name}_image"]).permute(2, 0, 1) / 255


def textured(height, width, seed=0):
    """A smooth random picture with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noise = 0.02 * torch.randn(3, height, width, generator=generator)
    return (smooth[0] + noise).clamp(0, 1)


def near_white(seed=0):
    steps = np.random.default_rng(seed).integers(0, 2, (3, 224, 224))
    return torch.from_numpy((255 - steps).astype(np.float32) / 255)


def every_7th(planes):
    return planes.flatten(1).T[::7].numpy()


def agreement(ours, theirs):
    return adjusted_rand_score(np.asarray(ours).ravel(), np.asarray(theirs).ravel())


def largest_share(labels):
    return torch.bincount(labels.flatten()).max().item() / labels.numel()


@pytest.mark.parametrize("name", IMAGES)
def test_pixel_and_vertex_features_are_those_of_the_reference(name):
    features = pixel_features(stored_image(name))
    np.testing.assert_allclose(
        every_7th(features), STORED[f"{name}_pixfeat"], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        every_7th(vertex_features(features)),
        STORED[f"{name}_vertexfeat"],
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("mode", COMPACTNESS)
def test_with_the_rule_of_the_reference_all_levels_are_its_partitions(name, mode):
    features = vertex_features(pixel_features(stored_image(name)))
    levels = hierarchy(features, compactness=COMPACTNESS[mode], shuffle_ties=False)
    for ours, theirs in zip(levels, STORED[f"{name}_{mode}_levels"], strict=True):
        assert agreement(ours, theirs) == 1


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("mode", COMPACTNESS)
def test_shuffled_ties_move_little_of_a_textured_image(name, mode):
    features = vertex_features(pixel_features(stored_image(name)))
    last = hierarchy(features, compactness=COMPACTNESS[mode])[-1]
    assert agreement(last, STORED[f"{name}_{mode}_levels"][-1]) > 0.9


def on_threads(function, counts):
    """Call it once for each number of threads."""
    before = torch.get_num_threads()
    try:
        results = []
        for count in counts:
            torch.set_num_threads(count)
            results.append(function())
    finally:
        torch.set_num_threads(before)
    return results


def test_20_runs_on_1_and_2_threads_give_one_partition():
    image = textured(181, 183)
    first, *others = on_threads(lambda: superpixels(image), 10 * [1] + 10 * [2])
    assert all(torch.equal(first, other) for other in others)


def test_threads_do_not_reach_the_last_digit_of_the_features():
    image = textured(301, 217)
    first, *others = on_threads(
        lambda: vertex_features(pixel_features(image)), [1, 2, 3]
    )
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("seed", range(3))
def test_near_white_with_noise_does_not_collapse(seed):
    labels = superpixels(near_white(seed))
    assert largest_share(labels) < 0.1
    assert 150 < labels.max() + 1 < 400


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_a_constant_image_is_divided_like_any_other(grey):
    labels = superpixels(torch.full((3, 224, 224), grey))
    assert largest_share(labels) < 0.03


def test_with_the_rule_of_the_reference_a_constant_image_is_one_region():
    features = vertex_features(pixel_features(torch.ones(3, 64, 64)))
    assert hierarchy(features, shuffle_ties=False)[-1].max() == 0


def test_no_region_reaches_over_the_edge_between_two_flat_phases():
    image = torch.full((3, 64, 90), 0.3)
    image[:, :, 41:] = 0.7
    labels = superpixels(image)
    left, right = labels[:, :41].unique(), labels[:, 41:].unique()
    assert not np.intersect1d(left, right).size


def test_regions_are_connected_and_numbered_without_gaps():
    labels = superpixels(textured(61, 47)).numpy()
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert all(pieces_of(labels == region)[1] == 1 for region in np.unique(labels))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (2, 3)])
def test_tiny_images_have_regions(shape):
    image = torch.linspace(0, 1, 3 * shape[0] * shape[1]).view(3, *shape)
    labels = superpixels(image)
    assert labels.shape == shape
    assert labels.min() == 0


def test_the_image_is_left_as_it_was():
    image = textured(20, 30)
    before = image.clone()
    superpixels(image)
    assert torch.equal(image, before)


def test_squares_are_the_grid_of_a_plain_vit():
    np.testing.assert_array_equal(squares((64, 80)), STORED["grid_seg"])
    odd = squares((17, 33))
    assert odd.max() == 5
    assert (odd[16, 32], odd[15, 31]) == (5, 1)


def test_the_pca_tree_of_stored_points_is_that_of_the_reference():
    ours = pca_tree((72, 88), torch.from_numpy(STORED["pcatree_centroids"]))
    # Points that lie on a plane may go to either side: some pixels differ.
    assert agreement(ours, STORED["pcatree_seg"]) > 0.99


def test_random_cells_are_alike_on_every_call():
    first, again = pca_tree((45, 71)), pca_tree((45, 71))
    assert torch.equal(first, again)
    assert first.max() + 1 >= round(1.1 * (45 * 71) ** 0.5)


def test_label_maps_of_any_values_are_numbered_boxed_and_outlined():
    labels = torch.tensor([[7, 7, -3], [7, 900, 900]])
    assert numbered(labels).tolist() == [[1, 1, 0], [1, 2, 2]]
    assert boxes_of(numbered(labels)).T.tolist() == [
        [0, 2, 0, 2],
        [0, 0, 1, 1],
        [1, 1, 1, 2],
    ]
    assert borders(labels).tolist() == [[False, True, True], [True, False, False]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: superpixels(torch.zeros(8, 8)), r"image: .*\(3, H, W\)"),
        (lambda: superpixels(torch.zeros(3, 8, 8), compactness=2), "compactness: 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
