"""The Vision Transformers ViT, DeiT, DINO, DINOv2 and DINOv3, at any patch stride.

Read it from top to bottom: the configuration, the patch embedding, rotary positions,
attention, the two feed-forward layers, the block, the model. Parameters have the names
of DINOv2's repository: its checkpoints load as they are, and those of DINO, DeiT and
timm's ViT have the same names.

References
----------
.. [1] Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
.. [2] Oquab et al., "DINOv2: Learning Robust Visual Features without
   Supervision", TMLR 2024.
.. [3] Darcet et al., "Vision Transformers Need Registers", ICLR 2024.
.. [4] Amir et al., "Deep ViT Features as Dense Visual Descriptors", 2021 (the stride,
   and queries, keys and values as features).
.. [5] Touvron et al., "Training data-efficient image transformers", ICML 2021 (DeiT).
.. [6] Caron et al., "Emerging Properties in Self-Supervised Vision Transformers",
   ICCV 2021 (DINO).
.. [7] Siméoni et al., "DINOv3", 2025 (rotary positions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Larger buffers are given back to the system and cleared again at each use, which costs
# a CPU as much as the matrix product that fills them.
_PIECE_BYTES = 24 << 20
_ROTARY_BASE = 100.0

Colour = tuple[float, float, float]
Rotation = tuple[Tensor, Tensor]
FacetKind = Literal["token", "query", "key", "value", "attention"]
IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Colour = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a Vision Transformer; the defaults are DINOv2 S/14."""

    embed_dim: int = 384  # channels of a token
    depth: int = 12  # blocks
    heads: int = 6  # of the attention of a block
    patch_size: int = 14
    image_size: int = 518  # whose grid of patches the position embedding was trained on
    registers: int = 0  # extra tokens between the class token and the patches [3]
    # The second half of a block; DINOv2 g/14 and DINOv3 S+/16 have "swiglu". Its hidden
    # channels per channel of a token; of a SwiGLU two thirds of that.
    feed_forward: Literal["mlp", "swiglu"] = "mlp"
    feed_forward_ratio: float = 4.0
    layer_scale: bool = True  # whether each branch is scaled before it is added
    # An embedding that is added to the patches, or queries and keys turned by angles
    # that say where the patch is in the image (DINOv3).
    positions: Literal["learned", "rotary"] = "learned"
    # The rule by which the position embedding is resampled to another grid. DINOv2
    # without registers adds .1 to the grid before it takes the scale factor and does
    # not antialias; with registers it asks for the size and antialiases. Features
    # change by some per cent when the rules are mixed up.
    position_offset: float = 0.1
    position_antialias: bool = False
    epsilon: float = 1e-6  # what the LayerNorms add to the variance
    # Red, green and blue in 0..1 are normalised by these before the first layer.
    pixel_mean: Colour = IMAGENET_MEAN
    pixel_deviation: Colour = IMAGENET_DEVIATION

    @property
    def trained_grid(self) -> int:
        """Patches along one side of the image that the position embedding knows."""
        return self.image_size // self.patch_size

    @property
    def hidden_dim(self) -> int:
        """Width of the feed-forward layer."""
        hidden = int(self.feed_forward_ratio * self.embed_dim)
        if self.feed_forward == "mlp":
            return hidden
        return (int(hidden * 2 / 3) + 7) // 8 * 8


class Facet(NamedTuple):
    """One thing to take from a block as features [4]_."""

    # The tokens after the block, normalised by the final LayerNorm; what the block's
    # attention makes of its input, all heads side by side, before rotary positions turn
    # it; or how much the class token attends to the patch, one channel for each head,
    # 1 if it attended to all tokens alike.
    kind: FacetKind
    block: int  # 0 for the first; -1 counts from the last

    def channels(self, config: ViTConfig) -> int:
        """Return how many channels it has."""
        return config.heads if self.kind == "attention" else config.embed_dim


class PatchEmbed(nn.Module):
    """One token per patch: a convolution as wide as the patch, at any stride."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(3, config.embed_dim, kernel_size=size, stride=size)

    def forward(self, images: Tensor, stride: int) -> Tensor:
        """Return the (B, C, h, w) patches of (B, 3, H, W) images."""
        # Channels last halves the time on a CPU and makes the flattening free.
        images = images.contiguous(memory_format=torch.channels_last)
        return F.conv2d(images, self.proj.weight, self.proj.bias, stride=stride)


class RotaryPositions(nn.Module):
    """Angles that tell queries and keys where in the image their patch is [7]_.

    Row and column of a patch's centre are measured from -1 to 1 across the image; a
    quarter of a head's channels has one angle for each period. The periods are of the
    checkpoint, as its repository has them, and stay in float32 wherever the model goes.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        count = config.embed_dim // config.heads // 4
        self.register_buffer("periods", torch.zeros(count))
        self.periods: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        periods = self.periods
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.periods = periods.to(self.periods.device)
        return self

    def forward(self, height: int, width: int, spacing: float, prefix: int) -> Rotation:
        """Return cosines and sines of a grid, each (prefix + height * width, dim).

        Neighbouring patches are `spacing` patches apart; `prefix` tokens in front of
        them are not turned.
        """
        centres = (self._centres(count, spacing) for count in (height, width))
        rows, columns = (each[:, None] / self.periods for each in centres)
        both = rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)
        angles = torch.cat(both, dim=-1)  # (height, width, dim / 2)
        angles = 2 * math.pi * angles.flatten(0, 1).tile(2)  # (tokens, dim)
        angles = F.pad(angles, (0, 0, prefix, 0))
        return angles.cos(), angles.sin()

    def _centres(self, count: int, spacing: float) -> Tensor:
        index = torch.arange(count, dtype=torch.float32, device=self.periods.device)
        side = 1 + (count - 1) * spacing  # of the image, in patches
        return 2 * (0.5 + index * spacing) / side - 1


def rotary_periods(config: ViTConfig) -> Tensor:
    """Return the (dim / 4,) periods that DINOv3 trained with, for heads of dim."""
    quarter = config.embed_dim // config.heads // 4
    return _ROTARY_BASE ** (torch.arange(quarter, dtype=torch.float32) / quarter)


def _turned(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of channels (i, i + dim / 2) of (B, heads, count, dim)."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return (x * cosine + torch.cat([-second, first], dim=-1) * sine).to(x.dtype)


class Attention(nn.Module):
    """Every token looks at every other; fused, so the score matrix is never stored."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Return what (B, count, C) tokens read from each other."""
        B, count, C = x.shape
        q, k, v = self._heads(x, rotation)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(B, count, C))  # type: ignore[no-any-return]

    def _heads(
        self, x: Tensor, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, count, C = x.shape
        qkv = self.qkv(x).view(B, count, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, count, dim)
        if rotation is not None:
            q, k = _turned(q, rotation), _turned(k, rotation)
        return q, k, v

    def part(self, x: Tensor, kind: str, rotation: Rotation | None = None) -> Tensor:
        """Return a facet of (B, count, C) tokens, (B, count, its channels)."""
        if kind == "attention":
            q, k, _ = self._heads(x, rotation)
            scores = q[:, :, :1] @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
            shares = scores.float().softmax(dim=-1)  # (B, heads, 1, count)
            return shares[:, :, 0].transpose(1, 2) * x.shape[1]
        number = ("query", "key", "value").index(kind)
        weight, bias = (p.chunk(3)[number] for p in (self.qkv.weight, self.qkv.bias))
        return F.linear(x, weight, bias)


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.hidden_dim = config.hidden_dim
        self.fc1 = nn.Linear(config.embed_dim, config.hidden_dim)
        self.fc2 = nn.Linear(config.hidden_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) from (..., C), each token alone."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """A gated layer: one half of the hidden values opens or closes the other."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.hidden_dim = 2 * config.hidden_dim
        self.w12 = nn.Linear(config.embed_dim, 2 * config.hidden_dim)
        self.w3 = nn.Linear(config.hidden_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) from (..., C), each token alone."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """A learned factor per channel for what a branch adds."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(config.embed_dim))


class Block(nn.Module):
    """Attention, then the feed-forward layer, each added to what came in."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.epsilon)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config) if config.layer_scale else None
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.epsilon)
        self.mlp = Mlp(config) if config.feed_forward == "mlp" else SwiGLU(config)
        self.ls2 = LayerScale(config) if config.layer_scale else None

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Return the (B, count, C) tokens with both branches added."""
        x = _add(x, self.attn(self.norm1(x), rotation), self.ls1)
        return _add(x, self._feed_forward(self.norm2(x)), self.ls2)

    def _feed_forward(self, x: Tensor) -> Tensor:
        """Apply the layer, on a CPU to so many tokens at a time that buffers stay."""
        count = _PIECE_BYTES // (self.mlp.hidden_dim * x.element_size())
        rows = x.flatten(0, 1)  # (B * count, C)
        if x.device.type != "cpu" or len(rows) <= count:
            return self.mlp(x)  # type: ignore[no-any-return]
        pieces = [self.mlp(piece) for piece in torch.split(rows, count)]
        return torch.cat(pieces).view_as(x)


def _add(x: Tensor, branch: Tensor, scale: LayerScale | None) -> Tensor:
    # One pass over memory in place of two.
    return x + branch if scale is None else torch.addcmul(x, branch, scale.gamma)


class VisionTransformer(nn.Module):
    """A Vision Transformer that gives one token per patch position.

    Build it under ``torch.device("meta")`` when a checkpoint follows: no memory is
    taken and no random number drawn before ``load_state_dict(..., assign=True)``.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        C = config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, C))
        if config.positions == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.trained_grid**2, C))
        else:
            self.rope_embed = RotaryPositions(config)
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, C))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(C, eps=config.epsilon)
        self._positions: dict[tuple[object, ...], Tensor] = {}

    def forward(
        self,
        images: Tensor,
        *,
        stride: int | None = None,
        facets: Sequence[Facet] = (),
        tick: Callable[[], None] | None = None,
    ) -> Tensor:
        """Return the (B, h, w, C) tokens after the last block, normalised.

        Images are (B, 3, H, W), normalised as in training, in the dtype of the weights.
        H and W are a patch plus a whole number of strides, by default patches, so there
        are h = 1 + (H - patch_size) // stride rows of tokens, that of row i centred at
        ``(patch_size - 1) / 2 + stride * i``. Facets, if any are asked for, come in
        place of the tokens, side by side as channels, and no more blocks are run than
        they need. `tick` is called after each block; what it raises ends the pass.
        """
        asked, blocks = facets or [Facet("token", -1)], range(self.config.depth)
        wanted = [facet._replace(block=blocks[facet.block]) for facet in asked]
        grid, x, rotation = self._start(images, stride or self.config.patch_size)
        found: dict[Facet, Tensor] = {}
        for index in range(1 + max(facet.block for facet in wanted)):
            block = cast("Block", self.blocks[index])
            for facet in wanted:
                if facet.block == index and facet.kind != "token":
                    inner = block.norm1(x)
                    found[facet] = block.attn.part(inner, facet.kind, rotation)
            x = block(x, rotation)  # (B, 1 + registers + h * w, C)
            if Facet("token", index) in wanted:
                found[Facet("token", index)] = self.norm(x)
            if tick is not None:
                tick()
        prefix = 1 + self.config.registers
        patches = torch.cat([found[facet][:, prefix:] for facet in wanted], dim=-1)
        return torch.unflatten(patches, 1, grid)

    def positions(self, height: int, width: int) -> Tensor:
        """Return the position embedding for a grid, (1, 1 + height * width, C).

        That of the class token comes first. The latest grid is remembered.
        """
        source = self.pos_embed
        key = (height, width, source.device, source.dtype, source.data_ptr())
        if key not in self._positions:
            self._positions.clear()
            resampled = _resample(source.detach(), self.config, height, width)
            self._positions[key] = resampled.to(source)
        return self._positions[key]

    def _start(
        self, images: Tensor, stride: int
    ) -> tuple[tuple[int, int], Tensor, Rotation | None]:
        """Return the grid, the tokens before the first block, and rotary positions."""
        _check_images(images, self.config.patch_size, stride)
        patches = self.patch_embed(images, stride)  # (B, C, h, w)
        B, C, height, width = patches.shape
        tokens = patches.flatten(2).transpose(1, 2)  # (B, h * w, C)
        parts: list[Tensor] = [self.cls_token]
        rotation = None
        if self.config.positions == "rotary":
            spacing, prefix = stride / self.config.patch_size, 1 + self.config.registers
            rotation = self.rope_embed(height, width, spacing, prefix)
        else:
            positions = self.positions(height, width)
            tokens = tokens + positions[:, 1:]
            parts[0] = self.cls_token + positions[:, :1]
        if self.config.registers:
            parts.append(self.register_tokens)
        parts = [part.expand(B, -1, C) for part in parts]
        return (height, width), torch.cat([*parts, tokens], dim=1), rotation


def _check_images(images: Tensor, patch_size: int, stride: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images: the shape is {tuple(images.shape)}; it must be (B, 3, H, W)"
        )
    if stride < 1:
        raise ValueError(f"stride: it is {stride}; it must be 1 or more")
    for side in images.shape[2:]:
        if side < patch_size or (side - patch_size) % stride:
            raise ValueError(
                f"images: a side of {side} pixels is not a patch of {patch_size} "
                f"pixels plus a whole number of strides of {stride}"
            )


def _resample(positions: Tensor, config: ViTConfig, height: int, width: int) -> Tensor:
    """Resample (1, 1 + n * n, C) positions to a grid by the configuration's rule."""
    trained = config.trained_grid
    if (height, width) == (trained, trained):
        return positions
    # On the CPU in float32 whatever the model's device: every device gets the same
    # values, and not every device has an antialiased bicubic.
    positions = positions.float().cpu()
    grid = torch.unflatten(positions[:, 1:], 1, (trained, trained))
    plane = grid.permute(0, 3, 1, 2)  # (1, C, trained, trained)
    goal: dict[str, Any] = {"size": (height, width)}
    if offset := config.position_offset:
        scales = [(side + offset) / trained for side in (height, width)]
        goal = {"scale_factor": scales}
    antialias = config.position_antialias
    plane = F.interpolate(plane, mode="bicubic", antialias=antialias, **goal)
    rows = plane.permute(0, 2, 3, 1).flatten(1, 2)  # (1, h * w, C)
    return torch.cat([positions[:, :1], rows], dim=1)
