"""The loss is that of the fixtures, and sorts as a slow sorting network does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_hrdv2.core.adaptation.loss import (
    neighbour_loss,
    soft_permutations,
    sorting_network,
)

FIXTURE = Path(__file__).parents[2] / "fixtures" / "neco" / "neco_loss.npz"


def places(plane: np.ndarray) -> torch.Tensor:
    """(B, C, H, W) as (B, H * W, C)."""
    return torch.from_numpy(plane).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("steepness", [100, 10])
def test_loss_gradient_and_floor_are_those_of_the_reference(steepness: int) -> None:
    with np.load(FIXTURE) as given:
        student = torch.from_numpy(given["student"]).requires_grad_()
        loss, least = neighbour_loss(
            student.flatten(2).transpose(1, 2),
            places(given["teacher"]),
            places(given["reference"]),
            steepness=steepness,
        )
        loss.backward()
        name = f"bitonic_{steepness}"
        assert float(loss.detach()) == pytest.approx(given[f"{name}_loss"], abs=1e-6)
        assert float(least) == pytest.approx(given[f"{name}_floor"], abs=1e-6)
        np.testing.assert_allclose(student.grad, given[f"{name}_grad"], atol=1e-5)


def test_shares_of_the_ranks_are_those_of_the_reference() -> None:
    with np.load(FIXTURE) as given:
        wanted = given["bitonic_100_perm_student_first"]
        student, reference = (places(given[n])[0] for n in ("student", "reference"))
    similarity = torch.cosine_similarity(student[:1], reference)
    np.testing.assert_allclose(soft_permutations(similarity), wanted, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 11])
def test_every_order_of_zeros_and_ones_is_sorted(count: int) -> None:
    # A network that sorts all of these sorts everything.
    values = np.array(np.unravel_index(np.arange(2**count), (2,) * count)).T.copy()
    for lower, upper in sorting_network(count):
        assert len({*lower, *upper}) == 2 * len(lower)  # each wire once a layer
        pair = values[:, lower], values[:, upper]
        values[:, lower], values[:, upper] = np.minimum(*pair), np.maximum(*pair)
    assert (np.diff(values, axis=1) >= 0).all()


def test_soft_sorting_is_that_of_one_comparator_after_the_other() -> None:
    values = np.random.default_rng(0).standard_normal(7)
    shares, sorted_so_far = np.eye(7), values.copy()
    for layer in sorting_network(7):
        for a, b in zip(*layer, strict=True):
            gap = sorted_so_far[b] - sorted_so_far[a]
            stays = math.atan(30 * gap) / math.pi + 0.5
            mix = np.array([[stays, 1 - stays], [1 - stays, stays]])
            sorted_so_far[[a, b]] = mix @ sorted_so_far[[a, b]]
            shares[[a, b]] = mix @ shares[[a, b]]
    found = soft_permutations(torch.from_numpy(values), steepness=30)
    np.testing.assert_allclose(found, shares, atol=1e-12)
    np.testing.assert_allclose(found.sum(0), 1)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found > 0).all()


def test_equal_views_have_no_excess_and_alike_places_no_gradient_that_is_none() -> None:
    same = torch.ones(1, 4, 3, requires_grad=True)
    loss, least = neighbour_loss(same, same, torch.ones(5, 3))
    loss.backward()
    assert float((loss - least).detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(same.grad).all()
