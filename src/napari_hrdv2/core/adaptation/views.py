"""Two views of one place in an image, and the points that both of them show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

POINTS = 7  # along each side of the part that both views show
FARTHEST = 0.5  # of a side, that the second view is moved along each axis
MARGIN = 16  # of a side: a sixteenth is not read, as it is known from one side only
GAIN, OFFSET = 0.2, 0.2  # of grey levels: in logarithms, and in deviations


@dataclass(frozen=True)
class ViewPairs:
    """Pairs of views: (B, 3, S, S) images each, and (B, n, 2) points of each.

    Points are rows and columns in the pixels of their view, in the same order.
    """

    images: tuple[Tensor, Tensor]
    points: tuple[Tensor, Tensor]

    @classmethod
    def draw(
        cls, images: Sequence[Tensor], side: int, pairs: int, rng: np.random.Generator
    ) -> ViewPairs:
        """Return pairs from (1 or 3, H, W) images that are `side` large or larger.

        Views are squares, moved against each other by up to half a side, turned and
        flipped, with a gain and an offset of their grey levels.
        """
        drawn = [
            _pair(images[int(rng.integers(len(images)))], side, rng)
            for _ in range(pairs)
        ]
        first, second = zip(*drawn, strict=True)
        (a, p), (b, q) = (
            map(torch.stack, zip(*views, strict=True)) for views in (first, second)
        )
        return cls((a, b), (p, q))

    def to(self, device: torch.device) -> ViewPairs:
        """Return the same on a device."""
        (a, b), (p, q) = self.images, self.points
        return ViewPairs((a.to(device), b.to(device)), (p.to(device), q.to(device)))


View = tuple[Tensor, Tensor]  # (3, S, S) and (n, 2)


def _pair(image: Tensor, side: int, rng: np.random.Generator) -> tuple[View, View]:
    room = np.array(image.shape[1:]) - side
    reach = int(FARTHEST * side)
    first = rng.integers(0, room + 1)
    second = rng.integers(
        np.maximum(first - reach, 0), np.minimum(first + reach, room) + 1
    )
    margin = side // MARGIN
    low = np.maximum(first, second) + margin
    high = np.minimum(first, second) + side - margin
    steps = (np.arange(POINTS) + 0.5) / POINTS
    rows, columns = (a + (b - a) * steps - 0.5 for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    deviation = float(image.std())

    def view(corner: np.ndarray) -> View:
        top, left = corner.tolist()
        seen = image[:, top : top + side, left : left + side].expand(3, -1, -1)
        places = torch.from_numpy(points - corner).float()
        for axis in range(2):
            if rng.random() < 0.5:
                seen = seen.flip(1 + axis)
                places[:, axis] = side - 1 - places[:, axis]
        if rng.random() < 0.5:
            seen, places = seen.transpose(1, 2), places.flip(1)
        gain, offset = np.exp(rng.uniform(-GAIN, GAIN)), rng.uniform(-OFFSET, OFFSET)
        return seen * float(gain) + float(offset) * deviation, places

    return view(first), view(second)


def tokens_at(tokens: Tensor, points: Tensor, patch_size: int) -> Tensor:
    """Return the (B, n, C) tokens at (B, n, 2) points, between the grid's bilinearly.

    Those of the (B, h, w, C) grid are of patches side by side, each at its centre.
    """
    length = torch.tensor(tokens.shape[1:3], device=points.device) - 1
    index = (points - (patch_size - 1) / 2) / patch_size
    places = (2 * index / length.clamp_min(1) - 1).flip(-1)  # columns come first
    found = grid_sample(
        tokens.movedim(-1, 1),
        places.unsqueeze(1),
        align_corners=True,
        padding_mode="border",
    )
    return found.squeeze(2).transpose(1, 2)  # (B, n, C)
