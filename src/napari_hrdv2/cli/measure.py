"""Measuring what matters on this machine: features, and stroke to segmentation."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_hrdv2.core.backbones import Backbone
    from napari_hrdv2.core.features.high_resolution import Features

Say = Callable[[str], None]

SIZE = 1036  # px: 74 × 74 patches of 14
TRANSFORMS = "shift:1,2"
LABELLED = 5000  # px
STROKES = 30
STROKE_TARGET = 25.0  # ms, on 2 CPU cores
VIT_TARGET = {"cpu": 0.6, "cuda": 0.5}  # share of the matmul rate
OVERHEAD_TARGET = 0.05
EMBEDDED_TARGETS = (4.0, 1000)  # s and MB, on 2 CPU cores


def run(say: Say) -> dict[str, Any]:
    """Measure this machine, print a table and return the figures."""
    machine = describe_machine()
    say(f"{machine['system']}, {machine['cores']} cores, torch {machine['torch']}")
    rates = matmul_rates()
    for name, rate in rates.items():
        say(f"  matrix products in {name}: {rate / 1e9:.0f} GFLOP/s")
    say(f"Embedded backbone, {SIZE} × {SIZE} px")
    embedded = measure_embedded()
    seconds, megabytes = EMBEDDED_TARGETS
    say(
        f"  features: {embedded['seconds']:.1f} s (to reach: {seconds:.0f}), "
        f"{embedded['peak_megabytes']:.0f} MB (to reach: {megabytes})"
    )
    _say_strokes(say, embedded["stroke_milliseconds"])
    say(f"ViT-S/14 with random weights, {SIZE} × {SIZE} px, {TRANSFORMS}")
    features, figures = measure_features(rates)
    share, overhead = figures["vit_share"], figures["overhead"]
    target = VIT_TARGET.get(figures["device"], VIT_TARGET["cpu"])
    say(f"  features: {figures['seconds']:.1f} s in {figures['precision']}")
    say(f"  inside the ViT: {share:.0%} of the matmul rate (to reach: {target:.0%})")
    say(f"  outside the ViT: {overhead:.1%} (to reach: {OVERHEAD_TARGET:.0%})")
    strokes = measure_strokes(features)
    _say_strokes(say, strokes)
    return {
        "machine": machine,
        "matmul_gflops": {name: rate / 1e9 for name, rate in rates.items()},
        "embedded": embedded,
        "features": figures,
        "stroke_milliseconds": strokes,
    }


def _say_strokes(say: Say, strokes: dict[str, float]) -> None:
    steps = ", ".join(f"{k} {strokes[k]:.1f}" for k in ("gather", "refit", "predict"))
    say(
        f"  stroke to segmentation, 3 classes, {LABELLED} labelled pixels, median ms: "
        f"{strokes['total']:.1f} in all (to reach: {STROKE_TARGET:.0f}): {steps}"
    )
    say(f"  memory on top of the tokens: {strokes['peak_megabytes']:.0f} MB")


def describe_machine() -> dict[str, Any]:
    """Return what figures should be quoted with."""
    import torch

    from napari_hrdv2 import __version__

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor())
        if hasattr(torch.cpu, "get_capabilities")
        else platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "napari_hrdv2": __version__,
    }


def matmul_rates(size: int = 3072) -> dict[str, float]:
    """Return the floating-point operations per second of a large matrix product."""
    import torch

    from napari_hrdv2.core.devices import choose_device, choose_precision

    device = choose_device()
    rates = {}
    for dtype in {torch.float32, choose_precision(device)}:
        left = torch.randn(size, size, device=device).to(dtype)
        right = torch.randn(size, size, device=device).to(dtype)

        def product(left: Any = left, right: Any = right) -> None:
            left @ right
            _synchronise(device)

        seconds = timed(product, repeats=7)
        rates[str(dtype).removeprefix("torch.")] = 2 * size**3 / seconds
    return rates


def measure_features(rates: dict[str, float]) -> tuple[Features, dict[str, Any]]:
    """Return features of a sample micrograph, and how fast they were computed."""
    from napari_hrdv2 import compute_features, load_backbone
    from napari_hrdv2.core.backbones.vit.model import ViTConfig, flop
    from napari_hrdv2.core.devices import choose_precision
    from napari_hrdv2.core.features.memory import parts_of
    from napari_hrdv2.core.samples import make_sample

    (backbone,) = parts_of(load_backbone("dinov2-small", weights="random"))
    watched = _Watched(backbone)
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
        "passes": watched.passes,
        "vit_gflops": work / watched.seconds / 1e9,
        "vit_share": work / watched.seconds / rates[precision],
        "overhead": 1 - watched.seconds / seconds,
    }


def measure_embedded() -> dict[str, Any]:
    """Return what features of the embedded backbone cost, and strokes on them."""
    from napari_hrdv2 import compute_features, load_backbone
    from napari_hrdv2.core.samples import make_sample

    backbone = load_backbone("embedded")
    image = make_sample("grains", (SIZE, SIZE)).image
    compute_features(image[:256, :256], backbone)  # warm up
    resident = reset_peak_memory()
    compute_features(image, backbone)
    peak = (peak_memory() - resident) / 1e6
    seconds = timed(lambda: compute_features(image, backbone), repeats=3)
    return {
        "seconds": seconds,
        "peak_megabytes": peak,
        "stroke_milliseconds": measure_strokes(compute_features(image, backbone)),
    }


class _Watched:
    """A backbone that adds up the time spent in it."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.seconds, self.passes = 0.0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def tokens(self, images: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        tokens = self._backbone.tokens(images, **options)
        _synchronise(images.device)
        self.seconds += time.perf_counter() - begin
        self.passes += len(images)
        return tokens


@dataclass
class Painter:
    """Draws short strokes where a made-up truth has one class, as a user would.

    Attributes
    ----------
    truth : (H, W) array of label ids
    labels : (H, W) uint8 array
        The strokes so far.
    """

    truth: NDArray[Any]
    labels: NDArray[np.uint8]
    rng: np.random.Generator

    @classmethod
    def for_features(cls, features: Features, *, classes: int = 3) -> Painter:
        """Return a painter of a truth that these features can tell apart.

        Random weights know nothing of the picture, so the truth is made from the
        features: the largest of some random readouts.
        """
        rng = np.random.default_rng(0)
        _, height, width = features.shape
        weight = rng.standard_normal((classes, features.shape[0]))
        planes = features.project(weight, np.zeros(classes))
        planes -= planes.mean((1, 2), keepdims=True)
        truth = (planes / planes.std((1, 2), keepdims=True)).argmax(0) + 1
        return cls(truth, np.zeros((height, width), np.uint8), rng)

    def stroke(self, length: int = 30, width: int = 3) -> None:
        """Add one stroke of about ``length * width`` pixels."""
        classes = int(self.truth.max())
        height, image_width = self.truth.shape
        label = int(self.rng.integers(1, classes + 1))
        row = int(self.rng.integers(height - width))
        column = int(self.rng.integers(image_width - length))
        area = np.s_[row : row + width, column : column + length]
        self.labels[area][self.truth[area] == label] = label

    def paint(self, pixels: int) -> None:
        """Add strokes until so many pixels are labelled."""
        while np.count_nonzero(self.labels) < pixels:
            self.stroke()


def measure_strokes(features: Features) -> dict[str, float]:
    """Return the median milliseconds of each step from stroke to segmentation."""
    from napari_hrdv2 import PixelClassifier
    from napari_hrdv2.core.classifier.samples import training_pixels
    from napari_hrdv2.session import LIVE_TOLERANCE

    _load_libraries()
    painter = Painter.for_features(features)
    painter.paint(LABELLED)
    resident = reset_peak_memory()
    classifier = PixelClassifier(tolerance=LIVE_TOLERANCE)
    classifier.fit(features, painter.labels).predict(features)
    times = []
    for _ in range(STROKES):
        painter.stroke()
        pixels = training_pixels(painter.labels)
        clock = [time.perf_counter()]
        features.samples.rows(pixels)
        clock.append(time.perf_counter())
        classifier.fit(features, painter.labels)
        clock.append(time.perf_counter())
        classifier.predict(features)
        clock.append(time.perf_counter())
        times.append(np.diff(clock))
    steps = 1e3 * np.median(times, axis=0)
    return {
        **dict(zip(("gather", "refit", "predict"), steps.tolist(), strict=True)),
        "total": 1e3 * median(sum(step) for step in times),
        "peak_megabytes": (peak_memory() - resident) / 1e6,
    }


def _load_libraries() -> None:
    """Fit something tiny, so that loading code does not count as memory of a fit."""
    from napari_hrdv2 import HighResFeatures, PixelClassifier

    tokens = np.random.default_rng(0).random((1, 4, 4, 8), np.float32)
    features = HighResFeatures(tokens, "identity", (4, 4), 1, 1)
    PixelClassifier().fit(features, np.arange(16).reshape(4, 4) % 3).predict(features)


def timed(work: Callable[[], object], *, repeats: int) -> float:
    """Return the median seconds of a piece of work, after one run that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return median(seconds)


def reset_peak_memory() -> int:
    """Forget the peak of the resident memory, where possible; return what is now."""
    import ctypes

    import psutil

    # What was freed but kept for later would count as in use. Only glibc has this.
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:  # only Linux can forget; elsewhere the peak is an upper bound
        pass
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Return the largest resident memory since the last reset, in bytes."""
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmHWM"].split()[0]) * 1024
    except OSError:
        import psutil

        return int(psutil.Process().memory_info().rss)


def _synchronise(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
