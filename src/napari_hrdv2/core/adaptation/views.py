"""Two views of one place in an image, and the points that both of them show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

POINTS = 7  # along each side of the part that both views show
FARTHEST = 0.5  # of a side, that the second view is moved along each axis
MARGIN = 16  # of a side: a sixteenth is not read, as it is known from one side only
GAIN, OFFSET = 0.2, 0.2  # of grey levels: in logarithms, and in deviations


class ViewPairs(NamedTuple):
    """B pairs of views, the first ones and the second ones.

    Points are rows and columns in the pixels of their view, in the same order.
    """

    images: Tensor  # (2, B, 3, S, S)
    points: Tensor  # (2, B, n, 2)

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
        return cls(*(torch.stack(each, 1) for each in zip(*drawn, strict=True)))


def _pair(image: Tensor, side: int, rng: np.random.Generator) -> list[Tensor]:
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

    def view(corner: np.ndarray) -> tuple[Tensor, Tensor]:
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

    views = view(first), view(second)
    return [torch.stack(each) for each in zip(*views, strict=True)]


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
