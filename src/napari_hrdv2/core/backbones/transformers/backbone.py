"""A model of the package transformers as a backbone: from pixels in 0..1 to tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.features.image import check_grey_or_rgb

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.model import Colour


class TransformersBackbone:
    """A frozen model of the package transformers; see `Backbone` for the attributes.

    Its patches lie side by side: the stride is the patch size.

    Parameters
    ----------
    name : str
        What it was loaded as.
    model : torch.nn.Module
        It gives tokens, see `token_maps`.
    prefix : int
        How many tokens come before those of the patches.
    pixel_mean, pixel_deviation : tuple of float
        Red, green and blue in 0..1 are normalised by these.
    weights_hash : str
    device : torch.device
    dtype : torch.dtype
        The number format of the pass.
    token_dtype : torch.dtype
        The number format in which tokens are handed out.
    """

    equivariant = False
    default_transforms = "shift:1,2"
    absolute_levels = True
    activations = 14  # as a ViT's
    context_cell = 0
    steps = 1

    def __init__(
        self,
        name: str,
        model: Any,
        *,
        prefix: int,
        pixel_mean: Colour,
        pixel_deviation: Colour,
        weights_hash: str,
        device: torch.device,
        dtype: torch.dtype,
        token_dtype: torch.dtype,
    ) -> None:
        self.name = name
        self.model = model
        self.patch_size: int = model.config.patch_size
        self.channels = _channels(model.config)
        self.weights_hash = weights_hash
        self.dtype = token_dtype
        self._prefix = prefix
        self._pixels = torch.tensor([pixel_mean, pixel_deviation])
        self._move(device, dtype)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self._pass_dtype = dtype
        self.model.to(device=device, dtype=dtype)
        pixels = self._pixels.view(2, 3, 1, 1).to(device)
        self._mean, self._deviation = pixels[0], pixels[1]

    @torch.no_grad()
    def tokens(
        self,
        images: Tensor,
        *,
        stride: int,
        tick: Callable[[], None] | None = None,
    ) -> Tensor:
        """Return the patch tokens that the model hands out last.

        Parameters
        ----------
        images : (B, 1 or 3, H, W) float32 tensor
            Nominally in 0..1; whole patches. A grey image serves as red, green and
            blue.
        stride : int
            Pixels between tokens: the patch size.
        tick : callable, optional
            Called after the pass. What it raises ends the computation.

        Returns
        -------
        (B, h, w, C) tensor of `dtype`
            h = H // patch_size, w likewise.
        """
        if images.ndim != 4:
            raise ValueError(
                f"images: the shape is {tuple(images.shape)}; it must be (B, C, H, W)"
            )
        self.channels_for(images.shape[1])
        if stride != self.patch_size:
            raise ValueError(
                f"stride: it is {stride}; {self.name}, a model of the package "
                f"transformers, takes its patch size alone, {self.patch_size}; "
                "transforms such as lattice:4 give finer tokens"
            )
        height, width = (side // self.patch_size for side in images.shape[2:])
        pixels = (images - self._mean) / self._deviation  # (B, 3, H, W), grey or not
        _, tokens = token_maps(self.model, pixels.to(self._pass_dtype))
        grid = torch.unflatten(tokens[:, self._prefix :], 1, (height, width))
        if tick is not None:
            tick()
        return grid.to(self.dtype)

    def channels_for(self, image_channels: int) -> int:
        """Return the channels of a token; grey and RGB images have the same."""
        check_grey_or_rgb(self.name, image_channels)
        return self.channels

    def channel_weights_for(self, image_channels: int) -> None:
        """Return that all channels are trusted alike."""
        return

    def to(self, device: str | torch.device) -> Self:
        """Move to a device and return itself; see `ViTBackbone.to`."""
        device = torch.device(device)
        half = self.dtype is not torch.float32
        self._move(device, choose_precision(device) if half else torch.float32)
        return self


def _channels(config: Any) -> int:
    """Return the channels of the last tokens: of SAM, those of its neck."""
    return int(getattr(config, "output_channels", config.hidden_size))


def token_maps(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens before the first layer and those that a model hands out last.

    Parameters
    ----------
    model : module of the package transformers
    pixels : (B, 3, H, W) tensor
        Normalised; H and W whole patches.

    Returns
    -------
    (B, count, hidden) and (B, count, C) tensors
        With the tokens that come before those of the patches.
    """
    takes = inspect.signature(model.forward).parameters
    size = model.config.patch_size
    height, width = (side // size for side in pixels.shape[2:])
    options: dict[str, Any] = {}
    if "interpolate_pos_encoding" in takes:
        options["interpolate_pos_encoding"] = True
    if "noise" in takes:  # by which a masked autoencoder orders the patches
        order = torch.arange(height * width, device=pixels.device)
        options["noise"] = order.expand(len(pixels), -1)
    if hasattr(model, "vision_encoder"):
        _fit_sam(model.vision_encoder, height, width)
    found = model(pixels, output_hidden_states=True, **options)
    first, last = found.hidden_states[0], found.last_hidden_state
    if first.ndim == 4:  # (B, h, w, hidden) and, after the neck, (B, C, h, w)
        first, last = first.flatten(1, 2), last.flatten(2).transpose(1, 2)
    return first, last


def _fit_sam(encoder: Any, height: int, width: int) -> None:
    """Make SAM's encoder, made for one size of image, take another grid of patches.

    Its embedding of absolute positions is resampled (bicubic, to the size); those of
    relative positions it resamples itself.
    """
    size = encoder.config.patch_size
    encoder.patch_embed.image_size = (height * size, width * size)
    if encoder.pos_embed is None:
        return
    if not hasattr(encoder, "trained_positions"):
        encoder.register_buffer("trained_positions", encoder.pos_embed.detach().clone())
    plane = encoder.trained_positions.float().permute(0, 3, 1, 2)  # (1, C, n, n)
    if plane.shape[2:] != (height, width):
        plane = F.interpolate(plane, size=(height, width), mode="bicubic")
    positions = plane.permute(0, 2, 3, 1).to(encoder.pos_embed)
    encoder.pos_embed = nn.Parameter(positions, requires_grad=False)
