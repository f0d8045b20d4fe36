"""FeatUp's learned joint bilateral upsampler: its network, its weights, its use.

The network looks at the image alone: for every pixel of a grid twice as fine it says
how much to take of each of the 7 × 7 values about it [1]_, after bicubic interpolation.
Four such stages give a token 16 × 16 pixels. The kernels are computed once for an image
and kept in half precision. The planes of a model go through the stages as whole maps;
single pixels are read backwards, from the last stage down to the tokens.

What comes after the stages in the authors' code, a 1 × 1 convolution over channels, is
read but not applied: it commutes with all that is done to space, so that a model that
is trained can do it itself.

.. [1] S. Fu, M. Hamilton et al., "FeatUp: A Model-Agnostic Framework for Features at
   Any Resolution", ICLR 2024.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from napari_hrdv2.core.backbones import checkpoint
from napari_hrdv2.core.backbones.hub import SHARED_FOLDER
from napari_hrdv2.core.backbones.vit.model import IMAGENET_DEVIATION, IMAGENET_MEAN
from napari_hrdv2.core.errors import WeightsError
from napari_hrdv2.core.features.tiles import Needed, Tile, runs, tiles_of

from .bilateral import checked_guide
from .separable import Axis
from .sharpening import FEATUP, Upsampling, parse_interpolation

PATTERN = "*_jbu_stack_cocostuff.ckpt"
PAGE = "https://github.com/mhamilton723/FeatUp"
VARIABLE = "NAPARI_HRDV2_FEATUP"
STAGES, RADIUS, KEYS = 4, 3, 32
WIDTH = 2 * RADIUS + 1
_STRIP = 64  # rows whose kernels are computed at a time
# The files hold all that was trained together; these parts are not for upsampling.
_IGNORED = ("model.", "downsampler.", "scale_net.")
_STAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "range_temp": (),
    "range_proj.0.weight": (KEYS, 3, 1, 1),
    "range_proj.0.bias": (KEYS,),
    "range_proj.3.weight": (KEYS, KEYS, 1, 1),
    "range_proj.3.bias": (KEYS,),
    "fixup_proj.0.weight": (WIDTH**2, WIDTH**2 + 3, 1, 1),
    "fixup_proj.0.bias": (WIDTH**2,),
    "fixup_proj.3.weight": (WIDTH**2, WIDTH**2, 1, 1),
    "fixup_proj.3.bias": (WIDTH**2,),
    "sigma_spatial": (),
}
FACTOR = 2**STAGES
_BAND = 8  # values of a coarse map that 7 neighbouring fine ones are interpolated from
# Per pixel of the finest stage: memory that is kept, and what comes on top meanwhile.
# The coarser stages add a third.
_KEPT_BYTES, _WORKING_BYTES = 2 * WIDTH**2 * 4 / 3, 1300


@torch.no_grad()
def kernels_of(state: Mapping[str, Tensor], stage: int, guide: Tensor) -> Tensor:
    """Return how much each pixel takes of those about it, (49, H, W) float16.

    `state` has the network's float32 tensors by the authors' names. Stages are 1 to 4,
    the coarsest first; their sum is not exactly 1. `guide` is the (3, H, W) image,
    standardised by ImageNet's mean and deviation, with the pixels of this stage: more
    than 3 along both sides.
    """
    part = {name: state[f"up{stage}.{name}"].to(guide.device) for name in _STAGE_SHAPES}
    hidden = functional.gelu(_mixed(part, "range_proj.0", guide))
    keys = _mixed(part, "range_proj.3", hidden)  # (32, H, W)
    padded = functional.pad(keys[None], [RADIUS] * 4, "reflect")[0]
    _, height, width = guide.shape
    output = guide.new_empty((WIDTH**2, height, width), dtype=torch.float16)
    for rows in runs(0, height, _STRIP):
        around = padded[:, rows.start : rows.stop + 2 * RADIUS]
        output[:, rows] = _strip(part, keys[:, rows], around, guide[:, rows])
    return output


def _strip(
    part: dict[str, Tensor], keys: Tensor, around: Tensor, guide: Tensor
) -> Tensor:
    """Return the kernels of some rows, (49, rows, W)."""
    _, height, width = keys.shape
    near = (divmod(number, WIDTH) for number in range(WIDTH**2))
    seen = (around[:, y : y + height, x : x + width] for y, x in near)
    scores = torch.stack([(pixels * keys).sum(0) for pixels in seen])
    scores *= part["range_temp"].exp().clamp(1e-4, 1e4)
    steps = torch.linspace(-1, 1, WIDTH, device=keys.device).square()
    distances = (steps[:, None] + steps).flatten()
    close = torch.exp(-distances / (2 * part["sigma_spatial"].square()))
    kernels = scores.softmax(0) * close[:, None, None]
    kernels /= kernels.sum(0).clamp_min(1e-7)
    hidden = functional.gelu(_mixed(part, "fixup_proj.0", torch.cat([kernels, guide])))
    return kernels + 0.1 * _mixed(part, "fixup_proj.3", hidden)


def _mixed(part: dict[str, Tensor], name: str, planes: Tensor) -> Tensor:
    """Return planes after a 1 × 1 convolution."""
    weight, bias = part[f"{name}.weight"], part[f"{name}.bias"]
    return functional.conv2d(planes[None], weight, bias)[0]


def shapes(channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, by the authors' names."""
    stages = product(range(1, STAGES + 1), _STAGE_SHAPES.items())
    found = {f"up{stage}.{name}": shape for stage, (name, shape) in stages}
    last = {"weight": (channels, channels, 1, 1), "bias": (channels,)}
    return found | {f"fixup_proj.1.{name}": shape for name, shape in last.items()}


def load_featup(path: str | os.PathLike[str]) -> checkpoint.Weights:
    """Return the weights of a file; WeightsError unless they match strictly."""
    file = checkpoint.weights_file(path)
    state = {
        name.removeprefix("upsampler."): x.float()
        for name, x in checkpoint.read_checkpoint(file).items()
        if not name.startswith(_IGNORED)
    }
    want = shapes(len(state.get("fixup_proj.1.bias", ())))
    checkpoint.matched(state, want, file, partial(checkpoint.misfit, want=want))
    return checkpoint.Weights(state, checkpoint.fingerprint(state))  # in its order


def featup_file() -> Path:
    """Return where this machine keeps the weights, or raise WeightsError.

    It is what NAPARI_HRDV2_FEATUP names, else the only file of the authors' names in
    the folder that a lab shares or in the Hub's cache. Several are an error, because
    each was trained with a backbone of its own.
    """
    if named := os.environ.get(VARIABLE):
        if Path(named).is_file():
            return Path(named)
        raise WeightsError(
            f"interpolation: {VARIABLE} names {named}, which is no file; let it name a "
            "checkpoint"
        )
    for folder in (folders := _folders()):
        found = sorted(folder.glob(PATTERN))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise WeightsError(
                f"interpolation: {folder} holds {names}; let {VARIABLE} name the one "
                "to use for 'jbu'"
            )
        if found:
            return found[0]
    raise WeightsError(
        "interpolation: 'jbu' has weights of its own, and none are on this machine; "
        f"fetch a checkpoint of its JBU, named {PATTERN}, by way of {PAGE} and put it "
        f"into {folders[-1]}, or let {VARIABLE} name it"
    )


def _folders() -> list[Path]:
    from huggingface_hub import constants

    shared = os.environ.get(SHARED_FOLDER)
    return [Path(folder) for folder in (shared, constants.HF_HUB_CACHE) if folder]


def installed_featup() -> checkpoint.Weights:
    """Return the weights of this machine; WeightsError if there are none that fit."""
    file = featup_file()
    return _loaded(file, file.stat().st_mtime_ns)


@cache
def _loaded(file: Path, changed: int) -> checkpoint.Weights:
    return load_featup(file)


class JbuUpsampler:
    """FeatUp on one grid of tokens, at least 2 × 2, guided by an image in 0..1.

    Its weights are those on this machine. The `kernels` of the stages are
    (49, 2h, 2w) … (49, 16h, 16w) float16 tensors.
    """

    def __init__(
        self,
        upsampling: Upsampling,
        guide: ArrayLike | Tensor | None,
        rows: Axis,
        columns: Axis,
        device: torch.device,
    ) -> None:
        self.rows, self.columns = rows, columns
        levels = checked_guide(guide, (rows.length, columns.length), "jbu")
        if len(levels) not in (1, 3):
            raise ValueError(
                f"guide: {len(levels)} channels; interpolation 'jbu' takes grey and RGB"
            )
        if min(rows.tokens, columns.tokens) < 2:
            raise ValueError(
                f"tokens: interpolation 'jbu' needs 2 × 2 of them and there are "
                f"{rows.tokens} × {columns.tokens}; use a larger image"
            )
        weights = _wanted(upsampling)
        seen = _seen(levels.to(device), rows, columns)
        self.kernels = []
        for stage in range(1, STAGES + 1):
            size = rows.tokens << stage, columns.tokens << stage
            small = functional.adaptive_avg_pool2d(seen, size)
            self.kernels.append(kernels_of(weights.state, stage, small))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the kernels take."""
        return sum(kernels.nbytes for kernels in self.kernels)

    def needed(self, region: Tile) -> Needed:
        """Return which rows and columns of tokens are needed: all of them."""
        rows, columns = self.rows.tokens, self.columns.tokens
        return [(torch.ones(rows) > 0, torch.ones(columns) > 0)]

    def blocks(self, planes: Tensor, region: Tile) -> Iterator[tuple[Tile, Tensor]]:
        """Yield the upsampled planes, as `SeparableUpsampler.blocks`.

        The bias of a model comes afterwards: the weights of a pixel do not sum to 1.
        """
        maps = planes[0]
        for kernels in self.kernels:
            maps = _through_stage(maps, kernels)
        for tile in tiles_of((self.rows.length, self.columns.length), region):
            pixels = (torch.arange(span.start, span.stop) for span in tile)
            (top, down), (left, across) = self._taps(*pixels)
            tall = (maps[:, top] * down[..., None]).sum(2)  # (K, rows, 16 w)
            block = (tall[..., left] * across).sum(3)
            yield tile, block.movedim(0, 1)

    def sampled(self, tokens: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the upsampled tokens (1, h, w, C) at N pixels, (N, C) float32."""
        (top, down), (left, across) = self._taps(rows, columns)
        weights = down[:, :, None] * across[:, None, :]
        return self._gathered(tokens[0], STAGES, top, left, weights)

    def _taps(self, *pixels: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the `_pixel_taps` of some rows and columns."""
        there = (each.to(self.kernels[0].device) for each in pixels)
        return map(_pixel_taps, (self.rows, self.columns), there)

    def _at(self, tokens: Tensor, stage: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the map after a stage at some of its pixels, (N, C)."""
        if stage == 0:
            return tokens[rows, columns].float()
        lengths = (x.tokens << (stage - 1) for x in (self.rows, self.columns))
        (top, above), (left, below) = map(_stage_taps, lengths, (rows, columns))
        own = self.kernels[stage - 1][:, rows, columns].float().T
        own = own.view(-1, WIDTH, WIDTH)
        weights = above.transpose(1, 2) @ own @ below  # (N, band, band)
        return self._gathered(tokens, stage - 1, top, left, weights)

    def _gathered(
        self, tokens: Tensor, stage: int, rows: Tensor, columns: Tensor, weights: Tensor
    ) -> Tensor:
        """Return sums over windows of the map after a stage, (N, C)."""
        width = self.columns.tokens << stage
        index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        found, index = torch.unique(index, return_inverse=True)
        values = self._at(tokens, stage, found // width, found % width)
        return functional.embedding_bag(
            index, values, per_sample_weights=weights.flatten(1), mode="sum"
        )


def _through_stage(maps: Tensor, kernels: Tensor) -> Tensor:
    """Return (K, h, w) maps after a stage, (K, 2h, 2w)."""
    _, height, width = kernels.shape
    fine = functional.interpolate(maps[None], (height, width), mode="bicubic")
    fine = functional.pad(fine, [RADIUS] * 4, "reflect")[0]
    total = maps.new_zeros(len(maps), height, width)
    for number, kernel in enumerate(kernels):
        down, right = divmod(number, WIDTH)
        near = fine[:, down : down + height, right : right + width]
        total.addcmul_(near, kernel.float())
    return total


def _stage_taps(coarse: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (N, band) coarse pixels of 7 fine ones, and (N, 7, band) weights."""
    last = 2 * coarse - 1
    fine = pixels[:, None] + torch.arange(-RADIUS, RADIUS + 1, device=pixels.device)
    fine = last - (last - fine.abs()).abs()  # mirrored
    axis = Axis(2 * coarse, coarse, 2, 2, "bicubic", "reflect")
    index, weight = axis.taps(fine.flatten())
    index, weight = index.view(*fine.shape, -1), weight.view(*fine.shape, -1)
    band = min(_BAND, coarse)
    start = index.flatten(1).amin(1).clamp(max=coarse - band)
    spread = weight.new_zeros(*fine.shape, band)
    spread.scatter_add_(2, index - start[:, None, None], weight)
    return start[:, None] + torch.arange(band, device=pixels.device), spread


def _pixel_taps(axis: Axis, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of the finest pixels a pixel of the image lies between, (N, 2)."""
    margin = (axis.patch_size - axis.stride) / 2
    last = axis.tokens * FACTOR - 1
    position = (pixels.double() - margin + 0.5) * FACTOR / axis.stride - 0.5
    position = position.clamp(0, last)
    first = position.floor()
    fraction = (position - first).float()
    index = torch.stack([first, (first + 1).clamp(max=last)], 1).long()
    return index, torch.stack([1 - fraction, fraction], 1)


def _seen(guide: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the part of the padded image that the tokens tile, standardised."""
    pixels = guide.float().expand(1, 3, -1, -1)
    down = max(0, rows.padded_length - guide.shape[1])
    right = max(0, columns.padded_length - guide.shape[2])
    pixels = functional.pad(pixels, (0, right, 0, down), "reflect")[0]
    for axis, number in ((rows, 1), (columns, 2)):
        margin = (axis.patch_size - axis.stride) // 2
        pixels = pixels.narrow(number, margin, axis.tokens * axis.stride)
    about = pixels.new_tensor([IMAGENET_MEAN, IMAGENET_DEVIATION]).view(2, 3, 1, 1)
    return (pixels - about[0]) / about[1]


def jbu_cost(pixels: int, stride: int) -> tuple[int, int]:
    """Return the bytes that stay of so many pixels, and those on top meanwhile."""
    finest = pixels * (FACTOR / stride) ** 2
    return round(_KEPT_BYTES * finest), round(_WORKING_BYTES * finest)


def _wanted(upsampling: Upsampling) -> checkpoint.Weights:
    """Return the weights of this machine, if they are those asked for."""
    featup = installed_featup()
    if upsampling.weights_hash not in ("", featup.hash):
        raise WeightsError(
            f"interpolation: the weights of 'jbu' on this machine are {featup.hash} "
            f"and {upsampling.weights_hash} are asked for; put that file in their place"
        )
    return featup


def with_fingerprint(interpolation: str) -> str:
    """Return "jbu" with the fingerprint of its weights; other methods as they are."""
    upsampling = parse_interpolation(interpolation)
    if upsampling.method != FEATUP:
        return interpolation
    return f"{FEATUP}@{_wanted(upsampling).hash}"
