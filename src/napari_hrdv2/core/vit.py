"""The Vision Transformer of DINOv2, with or without registers, at any patch stride.

Read it from top to bottom: the configuration, the patch embedding, attention, the two
feed-forward layers, the block, the model, and the arithmetic of a pass.
Parameters have the names of the original repository: its checkpoints load as they are.

References
----------
.. [1] Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
.. [2] Oquab et al., "DINOv2: Learning Robust Visual Features without
   Supervision", TMLR 2024.
.. [3] Darcet et al., "Vision Transformers Need Registers", ICLR 2024.
.. [4] Amir et al., "Deep ViT Features as Dense Visual Descriptors", 2021 (the stride).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-6
# Larger buffers are given back to the system and cleared again at each use, which costs
# a CPU as much as the matrix product that fills them.
_PIECE_BYTES = 24 << 20


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a Vision Transformer; the defaults are DINOv2 S/14.

    Attributes
    ----------
    embed_dim, depth, heads : int
        Channels of a token, number of blocks, attention heads of a block.
    patch_size, image_size : int
        Side of a patch, and of the image whose patch grid the position embedding
        was trained on.
    registers : int
        Extra tokens between the class token and the patches [3]_.
    feed_forward : {"mlp", "swiglu"}
        The second half of a block; DINOv2 g/14 has ``"swiglu"``.
    layer_scale : bool
        Whether each branch is scaled per channel before it is added.
    position_offset, position_antialias : float, bool
        The rule by which the position embedding is resampled to another grid. DINOv2
        without registers adds .1 to the grid before it takes the scale factor and does
        not antialias; with registers it asks for the size and antialiases. Features
        change by some per cent when the rules are mixed up.
    """

    embed_dim: int = 384
    depth: int = 12
    heads: int = 6
    patch_size: int = 14
    image_size: int = 518
    registers: int = 0
    feed_forward: Literal["mlp", "swiglu"] = "mlp"
    layer_scale: bool = True
    position_offset: float = 0.1
    position_antialias: bool = False

    @property
    def trained_grid(self) -> int:
        """Patches along one side of the image that the position embedding knows."""
        return self.image_size // self.patch_size

    @property
    def hidden_dim(self) -> int:
        """Width of the feed-forward layer."""
        if self.feed_forward == "mlp":
            return 4 * self.embed_dim
        return (int(4 * self.embed_dim * 2 / 3) + 7) // 8 * 8


class ViTOutput(NamedTuple):
    """What one pass gives; all of it is normalised by the final LayerNorm.

    Attributes
    ----------
    tokens : (B, h, w, C) tensor
        The patch tokens.
    class_token : (B, C) tensor
    register_tokens : (B, registers, C) tensor
    taps : tuple of (B, h, w, C) tensors
        Patch tokens after each of the blocks that were asked for, in that order.
    """

    tokens: Tensor
    class_token: Tensor
    register_tokens: Tensor
    taps: tuple[Tensor, ...]


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


class Attention(nn.Module):
    """Every token looks at every other; fused, so the score matrix is never stored."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what (B, count, C) tokens read from each other."""
        B, count, C = x.shape
        qkv = self.qkv(x).view(B, count, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, count, dim)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(B, count, C))  # type: ignore[no-any-return]


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
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=_EPSILON)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config) if config.layer_scale else None
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=_EPSILON)
        self.mlp = Mlp(config) if config.feed_forward == "mlp" else SwiGLU(config)
        self.ls2 = LayerScale(config) if config.layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, count, C) tokens with both branches added."""
        x = _add(x, self.attn(self.norm1(x)), self.ls1)
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

    Parameters
    ----------
    config : ViTConfig

    Notes
    -----
    Build it under ``torch.device("meta")`` when a checkpoint follows: no memory is
    taken and no random number drawn before ``load_state_dict(..., assign=True)``.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        C = config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, C))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.trained_grid**2, C))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, C))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(C, eps=_EPSILON)
        self._positions: dict[tuple[object, ...], Tensor] = {}

    def forward(
        self,
        images: Tensor,
        *,
        stride: int | None = None,
        taps: Sequence[int] = (),
        tick: Callable[[], None] | None = None,
    ) -> ViTOutput:
        """Return the normalised tokens of a batch of images.

        Parameters
        ----------
        images : (B, 3, H, W) tensor
            Normalised as in training, in the dtype of the weights. H and W must be a
            patch plus a whole number of strides.
        stride : int, optional
            Pixels between patches; the patch size if not given. The token of row i is
            centred at ``(patch_size - 1) / 2 + stride * i``.
        taps : sequence of int
            Blocks whose output is wanted too, 0 for the first; -1 counts from the last.
        tick : callable, optional
            Called after each block. What it raises ends the pass.

        Returns
        -------
        ViTOutput
            h = 1 + (H - patch_size) // stride rows of tokens, w likewise.
        """
        wanted = [range(self.config.depth)[index] for index in taps]
        grid, x = self._embed(images, stride or self.config.patch_size)
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)  # (B, 1 + registers + h * w, C)
            if index in wanted:
                kept[index] = self._on_grid(self.norm(x), grid)
            if tick is not None:
                tick()
        x = self.norm(x)
        return ViTOutput(
            tokens=self._on_grid(x, grid),
            class_token=x[:, 0],
            register_tokens=x[:, 1 : 1 + self.config.registers],
            taps=tuple(kept[index] for index in wanted),
        )

    def positions(self, height: int, width: int) -> Tensor:
        """Return the position embedding for a grid of patches.

        Parameters
        ----------
        height, width : int
            Rows and columns of patches.

        Returns
        -------
        (1, 1 + height * width, C) tensor
            That of the class token first, in the dtype and on the device of the
            weights. The latest grid is remembered.
        """
        source = self.pos_embed
        key = (height, width, source.device, source.dtype, source.data_ptr())
        if key not in self._positions:
            self._positions.clear()
            resampled = _resample(source.detach(), self.config, height, width)
            self._positions[key] = resampled.to(source)
        return self._positions[key]

    def _embed(self, images: Tensor, stride: int) -> tuple[tuple[int, int], Tensor]:
        _check_images(images, self.config.patch_size, stride)
        patches = self.patch_embed(images, stride)  # (B, C, h, w)
        B, C, height, width = patches.shape
        positions = self.positions(height, width)
        tokens = patches.flatten(2).transpose(1, 2) + positions[:, 1:]
        parts = [self.cls_token + positions[:, :1]]
        if self.config.registers:
            parts.append(self.register_tokens)
        parts = [part.expand(B, -1, C) for part in parts]
        return (height, width), torch.cat([*parts, tokens], dim=1)

    def _on_grid(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        patches = x[:, 1 + self.config.registers :]
        return torch.unflatten(patches, 1, grid)  # (B, h, w, C)


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
    antialias = config.position_antialias
    if config.position_offset:
        scales = [(side + config.position_offset) / trained for side in (height, width)]
        plane = F.interpolate(
            plane, scale_factor=scales, mode="bicubic", antialias=antialias
        )
    else:
        plane = F.interpolate(
            plane, size=(height, width), mode="bicubic", antialias=antialias
        )
    rows = plane.permute(0, 2, 3, 1).flatten(1, 2)  # (1, h * w, C)
    return torch.cat([positions[:, :1], rows], dim=1)


def flop(config: ViTConfig, tokens: int) -> int:
    """Return the floating-point operations of one pass over one image.

    Parameters
    ----------
    config : ViTConfig
    tokens : int
        Patch tokens, h * w.

    Returns
    -------
    int
        Two for each multiply-add of the matrix products. Norms, softmax and
        activations are not counted, as in the figures quoted for matrix products.
    """
    C = config.embed_dim
    count = tokens + 1 + config.registers
    wide = 3 if config.feed_forward == "swiglu" else 2
    linear = 4 * C * C + wide * C * config.hidden_dim
    attention = 2 * count * C
    patches = tokens * 3 * config.patch_size**2 * C
    return 2 * (patches + config.depth * count * (linear + attention))
