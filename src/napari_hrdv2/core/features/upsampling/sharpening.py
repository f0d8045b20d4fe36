"""Sharper than interpolation: finer grids from lattices, and back-projection.

All of it is linear in the tokens and acts on space only, so it is applied once, to
the tokens, when features are made. Reading pixels and segmenting then go the same way
as with plain interpolation, on the very same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import INTERPOLATIONS, SHARPENED
from .separable import KERNELS, Axis

if TYPE_CHECKING:
    from napari_hrdv2.core.features.transforms import TransformSet

CHANNELS_PER_CHUNK = 64  # converted to float32 at a time
FEATUP = "jbu"  # has weights of its own, which must be on the machine
_LEAST_STRIDE = 7  # FeatUp divides a stride by 16: finer ones would be all memory


@dataclass(frozen=True)
class Upsampling:
    """How tokens are upsampled: what a name such as "bilateral+2" stands for."""

    method: str
    steps: int = 0  # of back-projection
    weights_hash: str = ""  # that a learned method must have; "" for any

    @property
    def kernel(self) -> str:
        """What interpolates along one axis, one of `KERNELS`."""
        return self.method if self.method in KERNELS else "bilinear"

    @property
    def needs_one_grid(self) -> bool:
        """Whether the token maps of all shifts are first put onto one grid."""
        return self.method not in KERNELS


def parse_interpolation(name: str) -> Upsampling:
    """Return what a name such as "bilateral+2" stands for, or raise ValueError.

    It is one of `INTERPOLATIONS`, or "jbu@" and the fingerprint of the weights that
    are asked for.

    >>> parse_interpolation("bilinear+2")
    Upsampling(method='bilinear', steps=2, weights_hash='')
    """
    learned, at, weights_hash = name.partition("@")
    if learned == FEATUP and bool(at) == bool(weights_hash):
        return Upsampling(learned, weights_hash=weights_hash)
    if name not in INTERPOLATIONS:
        methods = ", ".join(("nearest", *SHARPENED))
        raise ValueError(
            f"interpolation: {name!r} is unknown; use {methods}, and all "
            "but nearest also with +1 or +2 steps of back-projection, as in "
            "bilinear+2; or jbu"
        )
    method, _, steps = name.partition("+")
    return Upsampling(method, int(steps or 0))


def back_projected(
    tokens: Tensor, patch_means: Callable[[Tensor], Tensor], steps: int
) -> Tensor:
    """Return tokens whose upsampled map has patch means closer to the tokens given.

    `patch_means` takes (T, h, w, c) float32 tokens, upsamples them and returns the mean
    of each patch, in the same shape. More than 2 steps amplify noise.

    Notes
    -----
    A step adds the residual, upsampled, to the map: with U for upsampling and D for
    the patch means, ``P ← P + U (X − D P)`` from ``P = U X`` [1]_. After n steps this
    is ``P = U (1 + R + … + Rⁿ) X`` with ``R = 1 − D U``; the sum is what is done here.

    References
    ----------
    .. [1] M. Irani and S. Peleg, "Improving resolution by image registration",
       CVGIP: Graphical Models and Image Processing 53, 1991.
    """
    output = torch.empty_like(tokens)
    for start in range(0, tokens.shape[-1], CHANNELS_PER_CHUNK):
        channels = slice(start, start + CHANNELS_PER_CHUNK)
        residual = tokens[..., channels].float()
        total = residual.clone()
        for _ in range(steps):
            residual = residual - patch_means(residual)
            total += residual
        output[..., channels] = total
    return output


def interpolated_patch_means(rows: Axis, columns: Axis) -> Callable[[Tensor], Tensor]:
    """Return `patch_means` of `back_projected` for separable interpolation."""
    down, across = (
        axis.matrix(torch.arange(axis.padded_length))
        .unfold(0, axis.patch_size, axis.stride)
        .mean(-1)  # D U of one axis, (tokens, tokens)
        for axis in (rows, columns)
    )

    def patch_means(tokens: Tensor) -> Tensor:
        wide = across.to(tokens.device) @ tokens  # (T, h, w, c)
        return (down.to(tokens.device) @ wide.flatten(2)).reshape(wide.shape)

    return patch_means


def on_one_grid(
    tokens: Tensor, shifts: TransformSet, rows: Axis, columns: Axis
) -> tuple[Tensor, Axis, Axis]:
    """Return the (T, h, w, C) tokens of T shifts on one grid, and its axes.

    Tokens of a lattice of n × n shifts are sorted into the grid that they sample, n
    times finer (between them it is interpolated where n does not divide the stride).
    Those of another set are averaged at the token centres of the image that was not
    shifted.
    """
    offsets = [copy.shift for copy in shifts.copies]
    if offsets == [(0, 0)]:
        return tokens, rows, columns
    if lattice_of(shifts, rows.stride):
        stride, weights = stride_of_one_grid(shifts, rows.stride), [1.0] * len(offsets)
        rows, down = _finer(rows, stride, {shift[0] for shift in offsets})
        columns, across = _finer(columns, stride, {shift[1] for shift in offsets})
    else:
        weights = list(shifts.weights)
        down = {by: rows.matrix(rows.centres, by) for by, _ in offsets}
        across = {by: columns.matrix(columns.centres, by) for _, by in offsets}
    output = tokens.new_empty(1, rows.tokens, columns.tokens, tokens.shape[-1])
    for start in range(0, tokens.shape[-1], CHANNELS_PER_CHUNK):
        channels = slice(start, start + CHANNELS_PER_CHUNK)
        part = tokens[..., channels]
        output[0, ..., channels] = _summed(part, offsets, weights, down, across)
    return output, rows, columns


def lattice_of(shifts: TransformSet, stride: int) -> int | None:
    """Return n if the shifts are n × n that cover one stride evenly, else None."""
    offsets = [copy.shift for copy in shifts.copies]
    rows, columns = (sorted({shift[axis] for shift in offsets}) for axis in (0, 1))
    gaps = [after - before for before, after in pairwise([*rows, rows[0] + stride])]
    is_even = rows == columns and max(gaps) - min(gaps) <= 1
    is_full = len(offsets) == len(rows) ** 2 and 0 in rows
    return len(rows) if is_even and is_full else None


def stride_of_one_grid(shifts: TransformSet, stride: int) -> int:
    """Return the distance of the tokens that `on_one_grid` gives, in pixels."""
    return max(1, stride // (lattice_of(shifts, stride) or 1))


def check_upsampling(upsampling: Upsampling, shifts: TransformSet, stride: int) -> None:
    """Raise ValueError where the shifts do not allow a way of upsampling."""
    method = upsampling.method
    if upsampling.needs_one_grid and shifts.compat == "reference":
        raise ValueError(
            f"interpolation: {method!r} needs the true centres of the tokens, which "
            "compat='reference' does not have; choose bilinear or nearest"
        )
    if method == FEATUP and stride_of_one_grid(shifts, stride) < _LEAST_STRIDE:
        raise ValueError(
            f"interpolation: {method!r} divides the distance of the tokens by 16, and "
            f"it must be {_LEAST_STRIDE} px or more; choose a larger stride or no "
            "lattice of shifts"
        )
    if method == "interleaved" and lattice_of(shifts, stride) is None:
        raise ValueError(
            "interpolation: 'interleaved' sorts the tokens of a lattice of shifts into "
            f"a finer grid, and {shifts.spec!r} is none; choose the transforms "
            "lattice:2 or lattice:4, or bilinear"
        )


def _finer(axis: Axis, stride: int, moved: set[int]) -> tuple[Axis, dict[int, Tensor]]:
    """Return the finer axis, and what each shift adds to it, (h', h) each."""
    # Patches that a shift wrapped around the border do not count.
    shifts, last = sorted(moved), axis.padded_length - axis.patch_size
    fine = replace(axis, tokens=last // stride + 1, stride=stride, boundary="reflect")
    # First pixels of the patches in the image that was not shifted: (shifts, h)
    starts = axis.stride * torch.arange(axis.tokens) - torch.tensor(shifts)[:, None]
    starts = starts.flatten()
    known, order = starts.sort()
    order = order[(known >= 0) & (known <= last)]
    known = starts[order]
    wanted = stride * torch.arange(fine.tokens)
    after = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    before = torch.where(known[after] == wanted, after, after - 1)
    span = (known[after] - known[before]).clamp(min=1)
    fraction = (wanted - known[before]) / span
    matrix = torch.zeros(fine.tokens, len(starts))
    matrix.scatter_add_(1, order[before][:, None], 1 - fraction[:, None])
    matrix.scatter_add_(1, order[after][:, None], fraction[:, None])
    return fine, dict(zip(shifts, torch.split(matrix, axis.tokens, 1), strict=True))


def _summed(
    tokens: Tensor,
    offsets: Sequence[tuple[int, int]],
    weights: Sequence[float],
    down: dict[int, Tensor],
    across: dict[int, Tensor],
) -> Tensor:
    """Return the sum of resampled maps, (h', w', c) float32."""
    device, total = tokens.device, torch.zeros((), device=tokens.device)
    for row_shift, matrix in down.items():
        wide = torch.zeros((), device=device)
        for grid, (by, right), weight in zip(tokens, offsets, weights, strict=True):
            if by == row_shift:
                columns = weight * across[right].to(device)
                wide = wide + columns @ grid.float()  # (h, w', c)
        total = total + torch.tensordot(matrix.to(device), wide, 1)
    return total
