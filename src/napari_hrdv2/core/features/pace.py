"""How much a pass of a backbone computes, and how long that takes on this machine.

Operations follow from the shape of the network. Seconds follow from the pace of the
backbone's last run here; before its first, from how fast this machine multiplies two
matrices and from the share of that speed which a network of its kind reaches.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch

from napari_hrdv2.core.backbones.vit.model import ViTConfig, flop
from napari_hrdv2.core.devices import choose_precision

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones.embedded.network import ConvNetConfig

# Share of the speed of a matrix product that networks reach, measured on one thread of
# a CPU: ViTs of 0.70 to 0.86, the network of the embedded backbone of 0.5. In half
# precision the product stays in the cache, which a pass does not.
EFFICIENCY = 0.75
CONVOLUTION_EFFICIENCY = 0.5
HALF = 0.25  # of both, in half precision on a CPU
# What works on one plane after the other takes as long, per pixel, as so many
# operations of a matrix product in float32: the filter bank, and dividing an image.
FILTER_TIME, DIVISION_TIME = 2e5, 3e5
# Multiply-adds count twice: five Gaussians for each of five scales, those of the
# surroundings and of the levels, all separable; then the colours'.
FILTER_OPERATIONS = {1: 6000, 3: 7500}  # for grey and RGB images
_SHAPE = (384, 384, 1024)  # of the product that is timed
_TRIALS = 3


class Sized(Protocol):
    """What tells operations: a backbone, or an outline of one."""

    @property
    def name(self) -> str:
        """The name of the registry, or a Hub id."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...


def operations(
    backbone: Sized, *, tokens: int, pixels: int, image_channels: int = 1
) -> int:
    """Return the floating-point operations of one pass, two for each multiply-add.

    Parameters
    ----------
    backbone : Backbone
        Or an outline of one, with its name and ``operations(tokens, pixels)``.
    tokens, pixels : int
        Of one image.
    image_channels : int

    Returns
    -------
    int
        0 where they are not known, as of a model of transformers.
    """
    if backbone.name == "filters":
        return pixels * FILTER_OPERATIONS[image_channels]
    if backbone.name == "embedded":
        bank = pixels * FILTER_OPERATIONS[image_channels]
        return bank + embedded_operations(tokens=tokens, pixels=pixels)
    own = getattr(backbone, "operations", None)
    return int(own(tokens=tokens, pixels=pixels)) if own else 0


def vit_operations(config: ViTConfig, blocks: int, tokens: int) -> int:
    """Return the operations of the first blocks of a Vision Transformer."""
    return flop(replace(config, depth=blocks), tokens)


def embedded_operations(*, tokens: int, pixels: int) -> int:
    """Return the operations of the embedded network; at stride 1 it runs four times."""
    from napari_hrdv2.core.backbones.embedded.network import STRIDE, ConvNetConfig

    runs = STRIDE**2 if tokens > pixels / 2 else 1
    return round(runs * pixels * convolution_operations(ConvNetConfig()))


def convolution_operations(config: ConvNetConfig) -> float:
    """Return the operations of the convolutions per pixel, over all scales."""
    widths = config.widths
    total = 2.0 * 9 * 3 * config.stem
    inputs = (config.stem, *widths)
    for level, (before, width) in enumerate(zip(inputs, widths, strict=False), 1):
        total += 2 * 9 * width * (before + 2 * width) / 4**level
    for level, (fine, coarse) in enumerate(pairwise(widths), 1):
        total += 2 * (fine * coarse / 4 + 18 * fine * fine) / 4**level
    total += 2 * widths[0] * config.outputs / 4
    return total * sum(4.0**-scale for scale in range(config.scales))


class Paces:
    """Seconds per operation of the runs there were, for each backbone and device."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    def record(
        self, backbone: Sized, *, seconds: float, operations: int, tokens: int
    ) -> None:
        """Remember a run that was finished; of unknown operations, its tokens."""
        work = operations or tokens
        if seconds > 0 and work > 0:
            self._seconds[_key(backbone, operations)] = seconds / work

    def seconds(
        self,
        backbone: Sized,
        *,
        operations: int,
        tokens: int,
        pixels: int,
    ) -> float | None:
        """Return how long a run will take, about; None where nothing tells.

        Parameters
        ----------
        backbone : Backbone
            Or an outline of one.
        operations, tokens, pixels : int
            Of all passes.
        """
        known = self._seconds.get(_key(backbone, operations))
        if known is not None:
            return known * (operations or tokens)
        if not operations:
            return None
        return _guess(backbone, operations, pixels)

    def clear(self) -> None:
        """Forget all runs."""
        self._seconds.clear()


PACES = Paces()


def _key(backbone: Sized, operations: int) -> tuple[str, str]:
    kind = "operations" if operations else "tokens"
    return backbone.name, f"{backbone.device} {torch.get_num_threads()} {kind}"


def _guess(backbone: Sized, operations: int, pixels: int) -> float | None:
    """Return how long a run should take where matrices are multiplied so fast."""
    planes = 0.0
    efficiency = EFFICIENCY
    if backbone.name in ("filters", "embedded"):
        planes, efficiency = FILTER_TIME, CONVOLUTION_EFFICIENCY
        operations -= pixels * FILTER_OPERATIONS[1]
    elif getattr(backbone, "has_regions", False):
        planes = DIVISION_TIME
    # A pass need not have the number format of its tokens.
    own = getattr(backbone, "pass_dtype", None) or choose_precision(backbone.device)
    if own is not torch.float32 and backbone.device.type == "cpu":
        efficiency *= HALF
    fast = matrix_speed(backbone.device, own)
    plain = matrix_speed(backbone.device, torch.float32)
    if fast is None or plain is None:
        return None
    return max(operations, 0) / (fast * efficiency) + pixels * planes / plain


def matrix_speed(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the operations per second of a matrix product, measured once.

    It takes some 20 ms on a slow CPU. Another device is not woken up for it: then, and
    where it cannot be timed from outside, None.
    """
    if device.type == "cuda" and not _cuda_is_awake():
        return None
    if device.type not in ("cpu", "cuda"):
        return None
    return _matrix_speed(device, dtype, torch.get_num_threads())


def _cuda_is_awake() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@cache
def _matrix_speed(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    scale = 8 if device.type == "cuda" else 1
    rows, inner, columns = (scale * length for length in _SHAPE)
    left = torch.ones(rows, inner, device=device, dtype=dtype)
    right = torch.ones(inner, columns, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(1 + _TRIALS):  # the first finds memory and threads
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / max(best, 1e-9)
