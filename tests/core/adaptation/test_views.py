"""Two views show the same points, and tokens are read where they lie."""

from __future__ import annotations

import numpy as np
import torch

from napari_hrdv2.core.adaptation.views import ViewPairs, tokens_at


def coordinates(height: int, width: int) -> torch.Tensor:
    """An image whose red and green are the row and the column."""
    rows, columns = np.mgrid[:height, :width]
    return torch.from_numpy(np.stack([rows, columns, rows * 0])).float()


def test_both_views_show_the_same_places(monkeypatch) -> None:
    monkeypatch.setattr("napari_hrdv2.core.adaptation.views.GAIN", 0.0)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.views.OFFSET", 0.0)
    images = [coordinates(40, 71), coordinates(32, 32)]
    views = ViewPairs.draw(images, 32, 50, np.random.default_rng(0))
    seen = []
    for pictures, points in zip(views.images, views.points, strict=True):
        assert pictures.shape == (50, 3, 32, 32)
        assert points.min() >= 0
        assert points.max() <= 31
        seen.append(tokens_at(pictures.movedim(1, -1), points, 1))  # patches of a pixel
    torch.testing.assert_close(seen[0], seen[1], atol=1e-3, rtol=0)
    assert len(np.unique(seen[0][:, 0].numpy().round(), axis=0)) > 20  # all over
    assert len({tuple(each.flatten().tolist()) for each in views.points[0]}) > 20


def test_grey_levels_of_the_views_differ() -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((1, 32, 32))).float()
    views = ViewPairs.draw([image], 32, 1, np.random.default_rng(1))
    first, second = (float(each.mean()) for each in views.images)
    assert abs(first - second) > 0.01


def test_the_same_views_are_drawn_twice() -> None:
    images = [coordinates(50, 60)]
    one, again = (
        ViewPairs.draw(images, 16, 3, np.random.default_rng(5)) for _ in range(2)
    )
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.points, again.points)


def test_a_token_lies_at_the_centre_of_its_patch() -> None:
    tokens = coordinates(3, 5).movedim(0, -1)[None]  # of patches of 4 pixels
    points = torch.tensor([[[1.5, 1.5], [9.5, 17.5], [3.5, 5.5], [0.0, 19.0]]])
    expected = torch.tensor([[0, 0], [2, 4], [0.5, 1], [0, 4]])
    torch.testing.assert_close(tokens_at(tokens, points, 4)[0, :, :2], expected)
