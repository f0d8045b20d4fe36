"""From the tokens of all transformed copies to one token map per shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from napari_hrdv2.core.features.transforms import TransformSet


def one_map_per_shift(
    tokens: Any, transforms: TransformSet, shifts: TransformSet
) -> Tensor:
    """Undo flips and turns on the grid and average what shares a shift."""
    maps = _token_maps(tokens)
    if len(maps) != len(transforms) or any(grid.ndim != 3 for grid in maps):
        shapes = sorted({tuple(grid.shape) for grid in maps})
        raise ValueError(
            f"tokens: {len(maps)} of shape {', '.join(map(str, shapes))} do not fit "
            f"{len(transforms)} transforms; ({len(transforms)}, h, w, C) is needed"
        )
    if transforms.copies == shifts.copies and isinstance(maps, Tensor):
        return maps
    upright = [
        copy.inverse.apply_symmetry(grid)
        for copy, grid in zip(transforms.copies, maps, strict=True)
    ]
    if len({grid.shape for grid in upright}) > 1:
        raise ValueError(
            f"tokens: grids of {sorted({tuple(grid.shape) for grid in upright})} after "
            "undoing the transforms differ; where one turns the image, h and w swap"
        )
    averaged = []
    for copy in shifts.copies:
        members = transforms.members(copy.shift)
        total = torch.zeros(upright[0].shape, device=upright[0].device)
        for number, share in members:
            total += share * upright[number].float()
        averaged.append(total.to(upright[0].dtype))
    return torch.stack(averaged)


def _token_maps(tokens: Any) -> Tensor | list[Tensor]:
    if isinstance(tokens, Tensor):
        maps = tokens
    elif isinstance(tokens, np.ndarray):
        maps = torch.from_numpy(tokens)
    else:
        return [torch.as_tensor(grid) for grid in tokens]
    return maps.detach()
