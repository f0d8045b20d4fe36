"""From a model of the Hub that only the package transformers knows to a backbone.

No code of a repository is ever run: the classes are those of the package, chosen by
the model type, and weights are read from safetensors files alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_hrdv2.core.backbones.files.checkpoint import read_checkpoint, weights_file
from napari_hrdv2.core.backbones.files.downloads import download_weights
from napari_hrdv2.core.backbones.files.hub import PREPROCESSORS
from napari_hrdv2.core.backbones.transformers.backbone import (
    TransformersBackbone,
    token_maps,
)
from napari_hrdv2.core.backbones.vit.weights import fingerprint
from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.errors import WeightsError, is_out_of_memory

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.vit.model import Colour

Progress = Callable[[int, int], None]
_SAFETENSORS = "model.safetensors"


def load_transformers(
    name: str,
    config_file: Path,
    weights: str | os.PathLike[str] | None,
    device: torch.device,
    precision: str,
    progress: Progress | None,
) -> TransformersBackbone:
    """Return a model of the package transformers as a backbone; see `load_backbone`.

    Parameters
    ----------
    config_file : pathlib.Path
        Its config.json. How pixels are normalised is in the file beside it.
    """
    content = _read(config_file)
    try:
        with _quiet_package():
            from transformers import CONFIG_MAPPING, MODEL_MAPPING
    except ImportError as error:
        raise WeightsError(
            f"weights: {name} is a model of type {content.get('model_type')!r}, for "
            'which the package transformers is needed: pip install "napari-hrdv2'
            '[transformers]"'
        ) from error
    kind = content.get("model_type")
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
        _require_patches(name, config)
        mean, deviation = _pixels(name, config_file.parent)
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0  # a masked autoencoder hides no patch
        model, fingerprinted = _model(
            name, MODEL_MAPPING[type(config)], config, weights, progress
        )
        model.eval().requires_grad_(False)
        prefix = _prefix(name, model)
    dtype = choose_precision(device, precision)
    # Tokens are kept in half precision even where passes are faster in float32.
    keep_half = precision == "auto" and dtype is torch.float32
    return TransformersBackbone(
        name,
        model,
        prefix=prefix,
        pixel_mean=mean,
        pixel_deviation=deviation,
        weights_hash=fingerprinted,
        device=device,
        dtype=dtype,
        token_dtype=torch.float16 if keep_half else dtype,
    )


# --- What the files say ---------------------------------------------------------------
def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"weights: {path} is not a readable {path.name}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"weights: {path} is not a readable {path.name}")
    return content


def _require_patches(name: str, config: Any) -> None:
    size = getattr(config, "patch_size", None)
    channels = getattr(config, "num_channels", 3)
    if not isinstance(size, int) or channels != 3:
        raise WeightsError(
            f"weights: {name} gives no square patches of an RGB image: its config.json "
            f"has patch_size {size!r} and num_channels {channels!r}"
        )


def _pixels(name: str, folder: Path) -> tuple[Colour, Colour]:
    """Return the mean and the deviation by which pixels in 0..1 are normalised."""
    for filename in PREPROCESSORS:
        if (folder / filename).is_file():
            content = _read(folder / filename)
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


# --- The model ------------------------------------------------------------------------
def _model(
    name: str,
    kind: Any,
    config: Any,
    weights: str | os.PathLike[str] | None,
    progress: Progress | None,
) -> tuple[nn.Module, str]:
    """Return the model and the fingerprint of its weights."""
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(config), "random"
    if weights is None:
        file = download_weights(name, progress, filename=_SAFETENSORS)
    else:
        file = weights_file(weights)
    if file.suffix != ".safetensors":
        raise WeightsError(
            f"weights: {file} is no safetensors file, and {name} is read from no other"
        )
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=read_checkpoint(file),
        dtype=torch.float32,
        output_loading_info=True,
    )
    # Poolers make one vector of an image; many files leave them out.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise WeightsError(
            f"weights: {file} does not fit {name}: missing {', '.join(missing[:3])}"
            f"{more}"
        )
    state = {key: x for key, x in model.state_dict().items() if "pooler" not in key}
    for key, x in state.items():
        if not torch.isfinite(x).all():
            raise WeightsError(
                f"weights: {file} holds NaN or infinite numbers in {key}; fetch it "
                "again"
            )
    return model, fingerprint(state)


def _prefix(name: str, model: Any) -> int:
    """Return how many tokens come before those of the patches.

    No configuration says it. Of a grid of 2 by 3 patches one is made brighter at a
    time: before the first layer that must change one token, in reading order.
    """
    size = model.config.patch_size
    rows, columns = 2, 3
    images = torch.zeros(1 + rows * columns, 3, rows * size, columns * size)
    for number in range(rows * columns):
        top, left = size * (number // columns), size * (number % columns)
        images[1 + number, :, top : top + size, left : left + size] = 1
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
    prefix = first.shape[1] - rows * columns
    expected = torch.eye(rows * columns, dtype=torch.bool)
    if (
        prefix < 0
        or last.shape[:2] != first.shape[:2]
        or not torch.equal(changed[:, max(prefix, 0) :], expected)
        or changed[:, : max(prefix, 0)].any()
    ):
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
            raise MemoryError(
                f"backbone: the weights of {name} do not fit into memory; choose a "
                "smaller backbone"
            ) from error
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
