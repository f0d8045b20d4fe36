"""High-resolution features that are never written out pixel by pixel.

HR-Dv2 averages upsampled token maps of T transformed copies of an image into a
(C, H, W) map F. Upsampling, undoing a transform and averaging act on space, a linear
model acts on channels, so they commute::

    W · mean_t inverse_t(upsample(tokens_t)) + b
        = mean_t inverse_t(upsample(tokens_t · Wᵀ)) + b

Only the tokens are kept. Reading F at some pixels is a weighted gather of a few token
rows; segmenting the image projects the tokens to K planes and upsamples those.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from napari_hrdv2.core.backbones.filters.kernels import correlate, gaussian_taps
from napari_hrdv2.core.checks import check_choice, check_whole
from napari_hrdv2.core.errors import stop_if
from napari_hrdv2.core.postprocess.guides import guide_from

from .base import Features, JoinedFeatures, channel_weights
from .tiles import LinearModel, Needed, Stop, Tile, as_mask, projected, runs, tiles_of
from .transforms import (
    BOUNDARIES,
    COMPATS,
    TransformSet,
    moved_back,
    one_map_per_shift,
    parse_transforms,
)
from .upsampling.bilateral import Bilateral, checked_guide
from .upsampling.featup import JbuUpsampler
from .upsampling.separable import Axis, SeparableUpsampler, token_count
from .upsampling.sharpening import (
    FEATUP,
    Upsampling,
    back_projected,
    check_upsampling,
    interpolated_patch_means,
    on_one_grid,
    parse_interpolation,
)

if TYPE_CHECKING:
    from .options import PartOptions

PIXELS_PER_CHUNK = 4096
# Of context features: the Gaussian's standard deviation in cells, and the weight of
# their channels against 1 of the features themselves.
CONTEXT_WIDTH, CONTEXT_WEIGHT = 14 / 16, 0.25
CONTEXT_CELLS = 4  # that they reach, all but a hundred-thousandth of the weight


class HighResFeatures(Features):
    """The average of upsampled token maps of transformed copies of one image.

    Parameters
    ----------
    tokens : (T, h, w, C) array or tensor, or a sequence of T (h, w, C) ones
        Tokens of the transformed images, in the order of `transforms`; where a
        transform turns the image, h and w are swapped.
    transforms : str or TransformSet
        Tokens of transforms that share a shift are averaged at once, because their
        flips and turns can be undone on the token grid.
    image_shape : tuple of int
        (H, W). The image was padded at the bottom and the right to whole patches.
    patch_size, stride : int
        Side of a patch and distance of neighbouring patches in pixels.
    interpolation : str
        How tokens are upsampled, about their true centres: "nearest", "bilinear",
        "bicubic", "interleaved" (for lattices of shifts), "bilateral" (guided by the
        image) or "jbu" (the same, with weights that must be on the machine). All but
        "nearest" and "jbu" may be followed by "+1" or "+2": steps of back-projection,
        which sharpen. docs/upsampling.md compares them.
    boundary : {"periodic", "reflect"}
        What a shifted image showed at its border.
    compat : {"corrected", "reference"}
        ``"reference"`` reproduces HR-Dv2's published code, see Notes. It ships with
        ``interpolation="nearest"``.
    guide : (H, W) or (channels, H, W) array or tensor, optional
        The image: needed for "bilateral", in any range, which keeps it in 8 bits (a
        uint8 tensor is taken as the guide that it makes), and for "jbu", in 0..1.

    Attributes
    ----------
    tokens : (T, h, w, C) tensor
        One map for each of `shifts`; corrected by back-projection if there is any,
        and of a single, finer grid if the interpolation asks for one.

    Notes
    -----
    The method is HR-Dv2 [1]_. The published code undoes composed transforms in the
    wrong order, counts the identity twice among flips and two of the quarter turns
    twice, takes overlapping patches to tile the image, and adds up in half precision.
    ``compat="reference"`` does so too, but for the half precision.

    References
    ----------
    .. [1] R. Docherty et al., "Upsampling DINOv2 features for unsupervised vision
       tasks and weakly supervised materials segmentation", arXiv:2410.19836.

    Examples
    --------
    >>> tokens = np.ones((1, 2, 3, 5), np.float32)
    >>> features = HighResFeatures(tokens, "identity", (28, 40), 14, 14)
    >>> features.shape, features.sample([27], [39]).shape
    ((5, 28, 40), (1, 5))
    """

    def __init__(
        self,
        tokens: ArrayLike | Tensor | Sequence[Tensor],
        transforms: str | TransformSet,
        image_shape: tuple[int, int],
        patch_size: int,
        stride: int,
        interpolation: str = "bilinear",
        *,
        boundary: str = "periodic",
        compat: str = "corrected",
        options: PartOptions | None = None,
        channel_weights: Tensor | None = None,
        guide: ArrayLike | Tensor | None = None,
    ) -> None:
        upsampling = parse_interpolation(interpolation)
        check_choice("boundary", boundary, BOUNDARIES)
        check_choice("compat", compat, COMPATS)
        image_shape, patch_size, stride = _checked_geometry(
            image_shape, patch_size, stride
        )
        self.transforms = parse_transforms(transforms, stride, compat=compat)
        self.shifts = self.transforms.shifts()
        self.tokens = one_map_per_shift(tokens, self.transforms)
        grid = self.tokens.shape[1:3]
        if tuple(token_count(n, patch_size, stride) for n in image_shape) != grid:
            raise ValueError(
                f"tokens: a grid of {tuple(grid)} does not fit an image of shape "
                f"{tuple(image_shape)} with patches of {patch_size} px every "
                f"{stride} px"
            )
        self.rows, self.columns = (
            Axis(
                length,
                count,
                patch_size,
                stride,
                upsampling.kernel,
                boundary,
                tiled=self.transforms.compat == "reference",
            )
            for length, count in zip(image_shape, grid, strict=True)
        )
        self.patch_size, self.stride = patch_size, stride
        self.interpolation, self.boundary = interpolation, boundary
        self.shape = (self.tokens.shape[3], *image_shape)
        self.part_options = () if options is None else (options,)
        self.channel_weights = channel_weights
        self._guided: Bilateral | JbuUpsampler | None = None
        self._last_needed: tuple[Tile, Needed] | None = None
        if not self._is_pixelwise:
            self._upsample_by(upsampling, guide)

    def _upsample_by(
        self, upsampling: Upsampling, guide: ArrayLike | Tensor | None
    ) -> None:
        """Put the tokens onto one grid and correct them, as far as is asked for."""
        check_upsampling(upsampling, self.shifts, self.stride)
        if upsampling.needs_one_grid:
            self.tokens, self.rows, self.columns = on_one_grid(
                self.tokens, self.shifts, self.rows, self.columns
            )
            self.shifts = parse_transforms("identity", self.stride)
        rows, columns, device = self.rows, self.columns, self.tokens.device
        if upsampling.method == FEATUP:
            self._guided = JbuUpsampler(upsampling, guide, rows, columns, device)
        if upsampling.method == "bilateral":
            levels = checked_guide(guide, self.shape[1:], "bilateral").to(device)
            if levels.dtype != torch.uint8:
                levels = guide_from(levels)
            self._guided = Bilateral(levels, rows, columns)
        if upsampling.steps:
            patch_means = interpolated_patch_means(rows, columns)
            if isinstance(self._guided, Bilateral):
                patch_means = self._guided.patch_means
            self.tokens = back_projected(self.tokens, patch_means, upsampling.steps)

    def __repr__(self) -> str:
        return (
            f"HighResFeatures(shape={self.shape}, tokens={tuple(self.tokens.shape)}, "
            f"transforms={self.transforms.spec!r}, {self.nbytes / 1e6:.0f} MB)"
        )

    @property
    def own_nbytes(self) -> int:
        """Bytes of memory that the tokens and what guides them take."""
        return self.tokens.nbytes + (self._guided.nbytes if self._guided else 0)

    @cached_property
    def _upsampler(self) -> SeparableUpsampler | Bilateral | JbuUpsampler:
        return self._guided or SeparableUpsampler(
            self.shifts, self.rows, self.columns, self.tokens.device
        )

    @property
    def _is_pixelwise(self) -> bool:
        """Whether every token is a pixel, so that there is nothing to upsample."""
        one = [copy.shift for copy in self.shifts.copies] == [(0, 0)]
        return one and self.patch_size == self.stride == 1

    def sample(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:  # noqa: D102 - inherited
        pixels = self._pixels(rows, cols)
        output = np.empty((len(pixels[0]), self.shape[0]), np.float32)
        for chunk in runs(0, len(output), PIXELS_PER_CHUNK):
            found = self._upsampler.sampled(self.tokens, *(x[chunk] for x in pixels))
            output[chunk] = found.cpu().numpy()
        return output

    def planes(  # noqa: D102 - inherited
        self, model: LinearModel, area: Tile, stop: Stop = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        model, late = model.to(self.tokens.device), None
        if isinstance(self._guided, JbuUpsampler):  # its weights do not sum to 1
            late = model.bias[:, None]
            model = model._replace(bias=torch.zeros_like(model.bias))
        if not self._is_pixelwise:
            # Interpolation weights sum to 1, so the bias may be added this early.
            needed = None if area.shape == self.shape[1:] else self._needed(area)
            logits = projected(self.tokens, model, needed, stop)
            for tile, block in self._upsampler.blocks(logits, area):
                stop_if(stop, "the prediction")
                yield tile, block if late is None else block + late
            return
        sides = zip(area, self.shape[1:], strict=True)
        rows, columns = (as_mask(np.r_[span], length) for span, length in sides)
        for tile in tiles_of(self.shape[1:], area):
            tokens = self.tokens[:, tile.rows, tile.columns]
            wanted = [(rows[tile.rows], columns[tile.columns])]
            yield tile, projected(tokens, model, wanted, stop)[0].movedim(0, 1)

    def _needed(self, region: Tile) -> Needed:
        """Return the rows and columns of tokens that a region is interpolated from."""
        last = self._last_needed  # a viewport stays while scribbles are painted
        if last is None or last[0] != region:
            self._last_needed = last = region, self._upsampler.needed(region)
        return last[1]

    def materialize(self) -> NDArray[np.float32]:  # noqa: D102 - inherited
        if self._guided is not None:
            return self.project(np.eye(self.shape[0]), np.zeros(self.shape[0]))
        tokens = self.tokens.float().cpu()
        axes = self.rows, self.columns
        # Of the padded image, which may end a little before the image.
        lengths = (torch.arange(max(axis.length, axis.padded_length)) for axis in axes)
        down, across = map(Axis.matrix, axes, lengths)
        total = torch.zeros(self.shape)
        pairs = zip(self.shifts.copies, self.shifts.weights, strict=True)
        for grid, (copy, weight) in zip(tokens, pairs, strict=True):
            upsampled = torch.einsum("yi,ijc,xj->cyx", down, grid, across)
            upright = moved_back(upsampled, copy.shift, self.rows.boundary)
            total += weight * upright[:, : self.shape[1], : self.shape[2]]
        return total.numpy()


def with_context(
    own: HighResFeatures, cell: int, tick: Callable[[], None] = lambda: None
) -> JoinedFeatures:
    """Return features, and as many channels of their Gaussian means around each pixel.

    The means are kept on cells of `cell` px, a multiple of the stride, and reach about
    four cells far, so they cost a hundredth of the features themselves. They are linear
    in the tokens, and are read like any other tokens. `tick` is called for each row of
    cells; what it raises ends the computation.

    >>> own = HighResFeatures(torch.ones(1, 20, 30, 5), "identity", (40, 60), 2, 2)
    >>> with_context(own, 16).shape
    (10, 40, 60)
    """
    step = own.rows.stride
    count = tokens_per_cell(cell, step)
    # A grid that copies were put onto together may reach beyond the image.
    rows, columns = (token_count(n, own.patch_size, step) for n in own.shape[1:])
    means = means_around(own.tokens[:, :rows, :columns], count, tick)
    around = HighResFeatures(
        means.to(own.tokens.dtype),
        own.shifts,
        own.shape[1:],
        patch_size=own.patch_size + (count - 1) * step,
        stride=count * step,
        boundary=own.boundary,
        channel_weights=CONTEXT_WEIGHT * channel_weights(own),
    )
    both, parts = JoinedFeatures([own, around]), own.part_options
    both.part_options = tuple(replace(p, channels=both.shape[0]) for p in parts)
    return both


def tokens_per_cell(cell: int, stride: int) -> int:
    """Return how many tokens a cell of so many pixels has along a side."""
    return max(cell // stride, 1)


def means_around(
    tokens: Tensor, count: int, tick: Callable[[], None] = lambda: None
) -> Tensor:
    """Return Gaussian means of (T, h, w, C) tokens over cells of `count` × `count`.

    (T, ⌈h / count⌉, ⌈w / count⌉, C) float32, mirrored at the borders. The last cells
    may have fewer tokens, and weigh less. `tick` is called for each row of cells.
    """
    copies, height, width, channels = tokens.shape
    # Written in place, from one buffer: small results kept between large temporaries
    # would leave holes of their size in the heap, twice the memory in all.
    cells = tokens.new_empty(
        (copies, channels, -(-height // count), -(-width // count)), dtype=torch.float32
    )
    planes = cells.new_empty((copies, channels, min(count, height), width))
    for row, strip in enumerate(torch.split(tokens, count, 1)):
        tick()
        part = planes[:, :, : strip.shape[1]].copy_(strip.movedim(-1, 1))
        means = avg_pool2d(part, (strip.shape[1], count), ceil_mode=True)
        cells[:, :, row] = means[:, :, 0]
    weight = torch.ones_like(cells[:1, :1])
    for axis, length in ((2, height), (3, width)):
        if rest := length % count:
            weight.narrow(axis, -1, 1).mul_(rest / count)
    taps = gaussian_taps(CONTEXT_WIDTH)
    both = cells * weight, weight
    total, weights = (correlate(correlate(x, taps, 2), taps, 3) for x in both)
    return (total / weights).movedim(1, -1)


def _checked_geometry(
    image_shape: tuple[int, int], patch_size: int, stride: int
) -> tuple[tuple[int, int], int, int]:
    """Return the geometry as plain ints, or say which is none."""
    try:
        height, width = (operator.index(length) for length in image_shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"image_shape: {image_shape!r} is not (H, W) in whole pixels"
        ) from error
    for name, value in (("patch_size", patch_size), ("stride", stride)):
        check_whole(name, value)
    if stride > patch_size:
        raise ValueError(
            f"stride: {stride} px would leave gaps between patches of {patch_size} px; "
            "at most the patch size is allowed"
        )
    return (height, width), int(patch_size), int(stride)
