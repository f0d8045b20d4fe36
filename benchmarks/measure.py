"""A ViT on this machine beside what is aimed at: its rate, its overhead, a stroke.

Run with::

    python benchmarks/measure.py

The weights are random, which makes no difference to time or memory. The command
``napari-hrdv2 bench`` measures the embedded backbone.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.cli.bench import (
    LABELLED,
    machine,
    matmul_rates,
    scribble_milliseconds,
)
from napari_hrdv2.core.backbones.vit.model import ViTConfig
from napari_hrdv2.core.devices import choose_precision
from napari_hrdv2.core.features.memory import parts_of
from samples import make_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone
    from napari_hrdv2.core.features.base import Features

SIZE = 1036  # px: 74 × 74 patches of 14
TRANSFORMS = "shift:1,2"
STROKE_TARGET = 25.0  # ms, on 2 CPU cores
VIT_TARGET = {"cpu": 0.6, "cuda": 0.5}  # part of the matmul rate
OVERHEAD_TARGET = 0.05


def main() -> None:
    """Print the figures."""
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    rates = matmul_rates()
    for name, rate in rates.items():
        print(f"matrix products in {name}: {rate / 1e9:.0f} GFLOP/s")
    print(f"ViT-S/14 with random weights, {SIZE} × {SIZE} px, {TRANSFORMS}")
    features, figures = measure_features(rates)
    target = VIT_TARGET.get(figures["device"], VIT_TARGET["cpu"])
    print(f"  features: {figures['seconds']:.1f} s in {figures['precision']}")
    print(
        f"  inside the ViT: {figures['vit_share']:.0%} of the matmul rate (to reach: "
        f"{target:.0%})"
    )
    print(
        f"  outside the ViT: {figures['overhead']:.1%} (to reach: "
        f"{OVERHEAD_TARGET:.0%})"
    )
    truth = separable_truth(features)
    stroke = scribble_milliseconds(features, truth)
    parts = ", ".join(f"{name} {value:.1f}" for name, value in stroke.items())
    print(
        f"  stroke to segmentation, 3 classes, {LABELLED} labelled pixels, median ms "
        f"(to reach: {STROKE_TARGET:.0f}): {parts}"
    )
    peak = peak_memory(lambda: scribble_milliseconds(features, truth)) / 1e6
    print(f"  memory on top of the tokens: {peak:.0f} MB")


def measure_features(rates: dict[str, float]) -> tuple[Features, dict[str, Any]]:
    """Return features of a made micrograph, and how fast they were computed."""
    (backbone,) = parts_of(load_backbone("dinov2-small", weights="random"))
    watched = Watched(backbone)
    image = make_sample("grains", (SIZE, SIZE)).image
    compute_features(image[:224, :224], watched, "identity")  # warm up
    watched.seconds, watched.passes = 0.0, 0
    begin = time.perf_counter()
    features = compute_features(image, watched, TRANSFORMS)
    seconds = time.perf_counter() - begin
    # Of the pass; tokens are kept in half precision also where a pass is not.
    precision = str(choose_precision(backbone.device)).removeprefix("torch.")
    work = flop(ViTConfig(), (SIZE // 14) ** 2) * watched.passes
    return features, {
        "device": backbone.device.type,
        "precision": precision,
        "seconds": seconds,
        "vit_gflops": work / watched.seconds / 1e9,
        "vit_share": work / watched.seconds / rates[precision],
        "overhead": 1 - watched.seconds / seconds,
    }


def flop(config: ViTConfig, tokens: int) -> int:
    """Return the floating-point operations of one pass over so many patch tokens.

    Two for each multiply-add of the matrix products; norms, softmax and activations
    are not counted.
    """
    C = config.embed_dim
    count = tokens + 1 + config.registers
    wide = 3 if config.feed_forward == "swiglu" else 2
    linear = 4 * C * C + wide * C * config.hidden_dim
    attention = 2 * count * C
    patches = tokens * 3 * config.patch_size**2 * C
    return 2 * (patches + config.depth * count * (linear + attention))


class Watched:
    """A backbone that adds up the time spent in it."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.seconds, self.passes = 0.0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def tokens(self, images: Any, **options: Any) -> Any:
        """Return the tokens of the backbone, timed."""
        begin = time.perf_counter()
        tokens = self._backbone.tokens(images, **options)
        if images.device.type == "cuda":
            import torch

            torch.cuda.synchronize(images.device)
        self.seconds += time.perf_counter() - begin
        self.passes += len(images)
        return tokens


def separable_truth(features: Features, classes: int = 3) -> NDArray[Any]:
    """Return classes 1..K that these features can tell apart.

    Random weights know nothing of the image, so the truth is made from the features:
    the largest of some random linear models.
    """
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((classes, features.shape[0]))
    planes = features.project(weight, np.zeros(classes))
    planes -= planes.mean((1, 2), keepdims=True)
    return (planes / planes.std((1, 2), keepdims=True)).argmax(0) + 1


def peak_memory(work: Callable[[], object]) -> int:
    """Return the bytes of memory that a piece of work takes at most, by sampling."""
    with suppress(AttributeError, OSError, TypeError):  # only glibc has this
        ctypes.CDLL(None).malloc_trim(0)  # what is freed but kept does not count
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(seen) - seen[0]


if __name__ == "__main__":
    main()
