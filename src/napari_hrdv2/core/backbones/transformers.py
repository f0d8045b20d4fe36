"""Models of the Hub that only the package transformers knows.

No code of a repository is ever run: the classes are those of the package, chosen by
the model type, and weights are read from safetensors files alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_hrdv2.core.errors import WeightsError, is_out_of_memory

from . import checkpoint
from .base import BackboneSpec, GridBackbone, LoadOptions, Tick
from .hub import PREPROCESSORS, download_weights

if TYPE_CHECKING:
    from .vit.model import Colour


class TransformersBackbone(GridBackbone):
    """A frozen model of the package transformers; see `GridBackbone`.

    Its patches lie side by side: the stride is the patch size. `prefix` tokens come
    before those of the patches; pixels are normalised by a mean and a deviation.
    """

    steps = 1

    def __init__(
        self,
        name: str,
        model: Any,
        options: LoadOptions,
        *,
        prefix: int,
        pixels: tuple[Colour, Colour],
        weights_hash: str,
    ) -> None:
        self.name = name
        self.model = model
        self.patch_size = model.config.patch_size
        # Of SAM, the last tokens are those of its neck.
        self.channels = int(
            getattr(model.config, "output_channels", model.config.hidden_size)
        )
        self.weights_hash = weights_hash
        self.dtype = options.token_dtype
        self._prefix = prefix
        self._pixels = torch.tensor(pixels)
        self._move(options.device, options.dtype)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self._pass_dtype = dtype
        self.model.to(device=device, dtype=dtype)
        pixels = self._pixels.view(2, 3, 1, 1).to(device)
        self._mean, self._deviation = pixels[0], pixels[1]

    @torch.no_grad()
    def tokens(
        self, images: Tensor, *, stride: int, tick: Tick | None = None
    ) -> Tensor:
        """Return the patch tokens that the model hands out last; see `GridBackbone`."""
        self._check_batch(images)
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


def token_maps(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens before the first layer and those that a model hands out last.

    Both are (B, count, channels), with the tokens that come before those of the
    patches. Pixels are normalised (B, 3, H, W) of whole patches.
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


# --- Loading --------------------------------------------------------------------------
def load_transformers(
    spec: BackboneSpec, config_file: Path, options: LoadOptions
) -> TransformersBackbone:
    """Return the model of the package transformers that a config.json describes."""
    name = spec.name
    content = checkpoint.read_json(config_file)
    kind = content.get("model_type")
    try:
        with _quiet_package():
            from transformers import CONFIG_MAPPING, MODEL_MAPPING
    except ImportError as error:
        raise WeightsError(
            f"weights: {name} is a model of type {kind!r}, for which the package "
            'transformers is needed: pip install "napari-hrdv2[transformers]"'
        ) from error
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise WeightsError(
            f"weights: {config_file} describes a model of type {kind!r}, which neither "
            "napari-hrdv2 nor transformers knows; code of a repository is never run"
        )
    with _quiet_package(), _explained(name):
        config = CONFIG_MAPPING[kind].from_dict(content)
        config = getattr(config, "vision_config", config)  # of CLIP, SigLIP, SAM
        if type(config) not in MODEL_MAPPING:
            raise WeightsError(f"weights: {name}: {kind} is no model of images")
        size = getattr(config, "patch_size", None)
        channels = getattr(config, "num_channels", 3)
        if not isinstance(size, int) or channels != 3:
            raise WeightsError(
                f"weights: {name} gives no square patches of an RGB image: its "
                f"config.json has patch_size {size!r} and num_channels {channels!r}"
            )
        pixels = _pixels(name, config_file.parent)
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0  # a masked autoencoder hides no patch
        model, weights_hash = _model(spec, MODEL_MAPPING[type(config)], config, options)
        model.eval().requires_grad_(False)
        prefix = _prefix(name, model)
    return TransformersBackbone(
        name, model, options, prefix=prefix, pixels=pixels, weights_hash=weights_hash
    )


def _pixels(name: str, folder: Path) -> tuple[Colour, Colour]:
    """Return the mean and the deviation by which pixels in 0..1 are normalised."""
    for filename in PREPROCESSORS:
        if (folder / filename).is_file():
            content = checkpoint.read_json(folder / filename)
            content = content.get("image_processor", content)
            if content.get("do_normalize") is False:
                return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            values = content.get("image_mean"), content.get("image_std")
            if all(isinstance(v, list) and len(v) == 3 for v in values):
                return tuple(values[0]), tuple(values[1])
    raise WeightsError(
        f"weights: no {' or '.join(PREPROCESSORS)} of {name} with image_mean and "
        "image_std says how its pixels are normalised"
    )


def _model(
    spec: BackboneSpec, kind: Any, config: Any, options: LoadOptions
) -> tuple[nn.Module, str]:
    """Return the model and the fingerprint of its weights."""
    name = spec.name
    if options.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(config), "random"
    if options.weights is None:
        only = replace(spec, filename="model.safetensors")
        file = download_weights(only, options.progress)
    else:
        file = checkpoint.weights_file(options.weights)
    if file.suffix != ".safetensors":
        raise WeightsError(
            f"weights: {file} is no safetensors file, and {name} is read from no other"
        )
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=checkpoint.read_checkpoint(file),
        dtype=torch.float32,
        output_loading_info=True,
    )
    # Poolers make one vector of an image; many files leave them out.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        what = checkpoint.listing("missing", missing)
        raise WeightsError(f"weights: {file} does not fit {name}: {what}")
    state = {key: x for key, x in model.state_dict().items() if "pooler" not in key}
    checkpoint.require_finite(state, file)
    return model, checkpoint.fingerprint(state)


def _prefix(name: str, model: Any) -> int:
    """Return how many tokens come before those of the patches.

    No configuration says it. Of a grid of 2 by 3 patches one is made brighter at a
    time: before the first layer that must change one token, in reading order.
    """
    size, rows, columns = model.config.patch_size, 2, 3
    count = rows * columns
    bright = torch.eye(count).view(count, 1, rows, columns)
    images = torch.zeros(1 + count, 3, rows * size, columns * size)
    images[1:] = bright.repeat_interleave(size, 2).repeat_interleave(size, 3)
    try:
        with torch.no_grad():
            first, last = token_maps(model, images)
    except Exception as error:  # a model raises anything for a size it does not take
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"weights: {name} cannot be used: its pass refuses an image of "
            f"{images.shape[2]} by {images.shape[3]} pixels; position embeddings that "
            "can be resampled are needed"
        ) from error
    changed = (first[1:] != first[:1]).any(dim=-1)  # (patches, tokens)
    prefix = first.shape[1] - count
    expected = torch.eye(count, count + max(prefix, 0)).roll(prefix, 1).bool()
    if last.shape[:2] != first.shape[:2] or not torch.equal(changed, expected):
        raise WeightsError(
            f"weights: {name} cannot be used: its tokens are not one for each patch of "
            f"{size} pixels, row by row"
        )
    return prefix


# --- The package ----------------------------------------------------------------------
@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Make one sentence of what the package raises."""
    from huggingface_hub.errors import StrictDataclassError

    expected = ValueError, TypeError, RuntimeError, ImportError, KeyError
    try:
        yield
    except WeightsError:
        raise
    except (*expected, StrictDataclassError) as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        first = " ".join(lines[: 1 + lines[0].endswith(":")])
        raise WeightsError(
            f"weights: transformers does not load {name}: {first}"
        ) from error


@contextmanager
def _quiet_package() -> Iterator[None]:
    """Keep transformers' tables and bars out of the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
