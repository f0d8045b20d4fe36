"""SPiT's encoder: a Vision Transformer whose tokens have no order and no grid.

Where a region lies is part of its token, so there is no position embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_hrdv2.core.backbones.spit.tokens import BINS
from napari_hrdv2.core.backbones.vit.model import Block, ViTConfig, flop


@dataclass(frozen=True)
class SpitConfig:
    """The shape of an encoder and the tokens it was trained on; the default is SPiT-S.

    Attributes
    ----------
    embed_dim, depth, heads : int
        Channels of a token, number of blocks, attention heads of a block.
    gradients : bool
        Whether tokens hold a histogram of the image's gradient.
    sigma : float
        Width of the histograms' kernel.
    partition : {"superpixels", "squares", "pca-tree"}
        How images are divided.
    """

    embed_dim: int = 384
    depth: int = 12
    heads: int = 6
    gradients: bool = True
    sigma: float = 0.025
    partition: str = "superpixels"

    @property
    def token_dim(self) -> int:
        """Numbers in a raw token."""
        return BINS**2 * (5 if self.gradients else 4)


def density(config: SpitConfig) -> float:
    """Return how many regions an image has for each square of 16 px, about.

    Superpixels are as many as the image needs: 1.5 for each square of a micrograph, up
    to 3 of plain noise, fewer of flat areas.
    """
    return 1.5 if config.partition == "superpixels" else 1.0


def operations(config: SpitConfig, tokens: int) -> int:
    """Return the floating-point operations of a pass over so many regions.

    Those of the encoder, two for each multiply-add. Dividing the image into regions is
    not arithmetic of this kind; it takes about a fifth of the time of SPiT-S.
    """
    embedding = 2 * tokens * config.token_dim * config.embed_dim
    shape = ViTConfig(
        embed_dim=config.embed_dim,
        depth=config.depth,
        heads=config.heads,
        patch_size=0,  # there are no patches to embed
        image_size=0,
    )
    return embedding + flop(shape, tokens)


class SpitEncoder(nn.Module):
    """A Vision Transformer on a set of tokens.

    Parameters
    ----------
    config : SpitConfig

    Notes
    -----
    Build it under ``torch.device("meta")`` when a checkpoint follows.
    """

    def __init__(self, config: SpitConfig) -> None:
        super().__init__()
        self.config = config
        shape = ViTConfig(
            embed_dim=config.embed_dim, depth=config.depth, heads=config.heads
        )
        self.cls_token = nn.Parameter(torch.zeros(config.embed_dim))
        self.embed = nn.Linear(config.token_dim, config.embed_dim)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def forward(
        self, tokens: Tensor, *, tick: Callable[[], None] | None = None
    ) -> Tensor:
        """Return the normalised output of every token.

        Parameters
        ----------
        tokens : (n, token_dim) tensor
            From `region_tokens`, in the dtype of the weights.
        tick : callable, optional
            Called after each block. What it raises ends the pass.

        Returns
        -------
        (n + 1, embed_dim) tensor
            The class token first.
        """
        x = self.start(tokens)
        for block in self.blocks:
            x = block(x)  # (1, n + 1, D)
            if tick is not None:
                tick()
        return self.norm(x)[0]  # type: ignore[no-any-return]

    def start(self, tokens: Tensor) -> Tensor:
        """Return what the first block is given, (1, n + 1, D)."""
        return torch.cat([self.cls_token[None], self.embed(tokens)])[None]
