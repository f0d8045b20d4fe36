"""Coordinates from a survey: turned, scaled, raised a little, and nothing is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_hrdv2.core.classifier.basis import Basis, Overview
from napari_hrdv2.core.classifier.logistic import LinearModel


def table(count=500, channels=7, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((channels, channels))
    rows = (
        rng.standard_normal((count, channels)) @ mixing * np.logspace(-2, 3, channels)
    )
    return torch.from_numpy((rows + 4).astype(np.float32))


@pytest.mark.parametrize("whitening", [0, 0.15, 1])
def test_variances_are_those_of_principal_components_to_a_power(whitening):
    rows = table()
    basis = Basis.of(rows, kept=1, whitening=whitening)
    found = basis.design(rows)[:-1].double().T
    variances = np.linalg.eigvalsh(np.corrcoef(rows.double().T))[::-1]
    expected = variances * (variances / variances.mean()) ** -whitening
    covariance = np.cov(found.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(expected), atol=2e-3)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)


def test_trust_scales_the_channels_before_they_are_turned():
    rows, channel_weights = table(), torch.linspace(0.5, 2, 7)
    basis = Basis.of(rows, channel_weights, kept=1, whitening=0)
    scaled = (rows - rows.mean(0)) / rows.std(0, correction=0) * channel_weights
    design = basis.design(rows[:40]).T
    distances = torch.cdist(design, design)
    torch.testing.assert_close(
        distances, torch.cdist(scaled[:40], scaled[:40]), atol=5e-3, rtol=1e-3
    )


def test_a_readout_says_the_same_in_both_coordinates():
    rows = table()
    basis = Basis.of(rows, kept=1)
    rng = np.random.default_rng(1)
    solution = torch.from_numpy(rng.standard_normal((3, 8)).astype(np.float32))
    readout = basis.readout(solution)
    logits = rows.numpy() @ readout.weight.T + readout.bias
    np.testing.assert_allclose(solution @ basis.design(rows), logits.T, atol=1e-2)
    torch.testing.assert_close(basis.solution(readout), solution, atol=1e-3, rtol=1e-3)
    assert isinstance(readout, LinearModel)


def test_directions_of_next_to_no_variance_are_left_out():
    rows = table(channels=3)
    doubled = torch.cat([rows, rows + 1e-3 * table(channels=3, seed=1)], 1)
    assert len(Basis.of(doubled).stretch) <= 3


def test_a_class_that_the_survey_missed_gets_a_direction():
    background = table(channels=3)
    background = torch.cat(
        [background, background[:, :1]], 1
    )  # the fourth adds nothing
    basis = Basis.of(background)
    rare = background[:4] + torch.tensor([0, 0, 0, 1e-1])
    samples, classes = torch.cat([background[:4], rare]), torch.arange(8) // 4
    known = basis.knowing(samples, classes)
    assert len(known.stretch) == len(basis.stretch) + 1
    apart = [
        ((each.design(rare) - each.design(background[:4]))[:-1].T / each.stretch).norm()
        for each in (basis, known)
    ]
    whole = float(0.1 / basis.scale[3]) * 2  # four pixels
    assert apart[0] == pytest.approx(whole / 2**0.5, rel=0.02)
    assert apart[1] == pytest.approx(whole, rel=0.02)


def test_classes_that_the_survey_knows_change_nothing():
    rows = table()
    basis = Basis.of(rows)
    assert basis.knowing(rows, (rows[:, 2] > 4).long()) is basis


@pytest.mark.parametrize("value", [0.0, 1.0, -4e4])
def test_an_image_that_never_varies_has_coordinates(value):
    basis = Basis.of(torch.full((50, 4), value))
    design = basis.design(torch.full((3, 4), value))
    np.testing.assert_allclose(design[:-1], 0, atol=1e-2)
    assert torch.isfinite(basis.stretch).all()


def test_a_channel_that_never_varies_is_left_out():
    rows = table()
    rows[:, 2] = 1e4
    rows[:, 4] = 1e-9 * rows[:, 0]  # rounding, which must not be blown up
    basis = Basis.of(rows, kept=1)
    weight = basis.readout(torch.ones(1, len(basis.stretch) + 1)).weight
    np.testing.assert_allclose(weight[:, [2, 4]], 0, atol=1e-3)


def test_one_pixel_is_a_survey_too():
    basis = Basis.of(torch.ones(1, 4))
    assert torch.isfinite(basis.design(torch.zeros(2, 4))).all()


def test_an_overview_knows_what_it_was_made_from():
    rows = table().numpy()
    overview = Overview.of(rows, None)
    assert overview.is_of(rows.copy())
    assert not overview.is_of(rows[:-1])
    assert not overview.is_of(rows + 1)
    assert overview.design.shape == (1 + len(overview.basis.stretch), 500)
