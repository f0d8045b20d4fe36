"""``bench``: what features and scribbles cost on this machine."""

from __future__ import annotations

import os
import platform
import sys
import timeit
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .shared import Json, Report

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features

LABELLED, STROKES = 5000, 30  # px; brush strokes that are timed


def bench(as_json: Json = False) -> None:
    """Measure matrix products, embedded features, and scribble to segmentation."""
    report, figures = Report(as_json), measure()
    for title, group in figures.items():
        report.say(title.replace("_", " "))
        for name, value in group.items():
            shown = f"{value:.1f}" if isinstance(value, float) else value
            report.say(f"  {name}: {shown}")
    report.finish(figures)


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures of this machine, for 1024² pixels, `LABELLED` of them."""
    from napari_hrdv2 import compute_features, load_backbone
    from napari_hrdv2.core.samples import example

    sample, backbone = example(), load_backbone("embedded")
    image, truth = (np.tile(plane, (2, 2)) for plane in (sample.image, sample.labels))
    compute_features(image[:256, :256], backbone)  # what is loaded once, is now
    before, _ = _memory()
    seconds = timed(lambda: compute_features(image, backbone), repeats=3)
    peak = (_memory()[1] - before) / 1e6
    scribble = scribble_milliseconds(compute_features(image, backbone), truth)
    return {
        "machine": machine(),
        "matmul_gflops": {name: rate / 1e9 for name, rate in matmul_rates().items()},
        "embedded_features": {"seconds": seconds, "peak_megabytes": peak},
        "scribble_milliseconds": scribble,
    }


def machine() -> dict[str, Any]:
    """Return what figures are quoted with."""
    import torch

    from napari_hrdv2 import __version__

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "napari_hrdv2": __version__,
    }


def matmul_rates(size: int = 3072, device: str = "auto") -> dict[str, float]:
    """Return the operations per second of a large matrix product, by number format."""
    import torch

    from napari_hrdv2.core.devices import choose_device, choose_precision

    rates, chosen = {}, choose_device(device)
    for dtype in {torch.float32, choose_precision(chosen)}:
        square = torch.randn(size, size, device=chosen).to(dtype)
        # One number is read back: else a GPU answers before it has multiplied.
        product = partial(lambda a: (a @ a)[0, 0].item(), square)
        product()
        rate = 2 * size**3 / timed(product, repeats=7)
        rates[str(dtype).removeprefix("torch.")] = rate
    return rates


def scribble_milliseconds(
    features: Features,
    truth: NDArray[Any],
    labelled: int = LABELLED,
    strokes: int = STROKES,
) -> dict[str, float]:
    """Return the median time from a scribble to the segmentation, and of its parts."""
    from napari_hrdv2 import PixelClassifier
    from napari_hrdv2.core.classifier.samples import training_pixels
    from napari_hrdv2.session import LIVE_TOLERANCE

    labels, rng = np.zeros(truth.shape, np.uint8), np.random.default_rng(0)
    while np.count_nonzero(labels) < labelled:
        paint(labels, truth, rng)
    classifier = PixelClassifier(tolerance=LIVE_TOLERANCE)
    steps: dict[str, Callable[[], object]] = {
        "gather": lambda: features.samples.rows(training_pixels(labels)),
        "refit": lambda: classifier.fit(features, labels),
        "predict": lambda: classifier.predict(features),
    }
    times = np.empty((1 + strokes, len(steps)))
    for row in times:
        paint(labels, truth, rng)
        row[:] = [1e3 * timed(step, repeats=1) for step in steps.values()]
    times = np.column_stack([times.sum(axis=1), times])[1:]  # the first warms up
    return dict(zip(("total", *steps), np.median(times, axis=0).tolist(), strict=True))


def paint(labels: NDArray[Any], truth: NDArray[Any], rng: np.random.Generator) -> None:
    """Label one class of the truth where a short brush stroke covers it."""
    row, column = (int(rng.integers(length - 30)) for length in truth.shape)
    area = slice(row, row + 3), slice(column, column + 30)
    label = rng.integers(1, truth.max() + 1)
    labels[area][truth[area] == label] = label


def timed(work: Callable[[], object], *, repeats: int) -> float:
    """Return the median seconds of a piece of work."""
    return median(timeit.repeat(work, number=1, repeat=repeats))


def _memory() -> tuple[int, int]:
    """Return the memory of this process in bytes: now, and at most so far."""
    import psutil

    info = psutil.Process().memory_info()
    if sys.platform == "win32":
        return int(info.rss), int(info.peak_wset)
    from resource import RUSAGE_SELF, getrusage

    unit = 1 if sys.platform == "darwin" else 1024
    return int(info.rss), unit * getrusage(RUSAGE_SELF).ru_maxrss
