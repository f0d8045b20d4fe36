"""The file of the embedded backbone: a network, and what each channel is worth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.backbones.checkpoint import fingerprint
from napari_hrdv2.core.backbones.filters import filter_names
from napari_hrdv2.core.errors import WeightsError

from .network import ConvNet, ConvNetConfig

_UNREADABLE = (OSError, SafetensorError)
_UNFIT = (KeyError, TypeError, ValueError, RuntimeError)
BUNDLED = Path(__file__).with_name("embedded.safetensors")


@dataclass(frozen=True)
class EmbeddedWeights:
    """What training made."""

    network: ConvNet  # with the normalisation folded into the convolutions
    channel_weights: Tensor  # (C,), of the network and of the filter bank on RGB images
    hash: str  # the fingerprint of both


def save_weights(
    network: ConvNet,
    channel_weights: Tensor,
    path: str | os.PathLike[str],
    *,
    trained: str,
) -> None:
    """Write a network that was trained, in float16, with a word on how."""
    state = network.folded().half().state_dict() | {"trust": channel_weights.half()}
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    metadata = {"config": network.config.to_json(), "trained": trained}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_weights(source: str | os.PathLike[str] | None = None) -> EmbeddedWeights:
    """Return weights ready to compute with, or raise WeightsError.

    They are those of the package, of a file that ``training/train.py`` wrote, or
    ``"random"``.
    """
    if source == "random":
        return _random_weights()
    path = BUNDLED if source is None else Path(source).expanduser()
    try:
        with safe_open(path, framework="pt") as file:
            config = ConvNetConfig.from_json((file.metadata() or {})["config"])
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - it has no other way
        network = ConvNet(config).folded()
        weights_hash, channel_weights = fingerprint(state), state.pop("trust")
        network.load_state_dict(state)
        if (
            channel_weights.shape != (_channels(config),)
            or not (channel_weights > 0).all()
        ):
            raise ValueError("trust is not one positive number for each channel")
    except (*_UNREADABLE, *_UNFIT) as error:
        raise WeightsError(
            f"weights: {path} is not a file of the embedded backbone, which "
            "training/train.py writes"
        ) from error
    return EmbeddedWeights(network.requires_grad_(False), channel_weights, weights_hash)


def _random_weights() -> EmbeddedWeights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ConvNet(ConvNetConfig()).folded()
    channel_weights = torch.ones(_channels(network.config))
    return EmbeddedWeights(network.requires_grad_(False), channel_weights, "random")


def _channels(config: ConvNetConfig) -> int:
    return config.channels + len(filter_names(3))
