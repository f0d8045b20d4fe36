"""What a GPU makes of features and strokes, for a machine that is lent for minutes.

Run with::

    python benchmarks/gpu.py OUT [--device cuda] [--minutes 8] [--tiny]

After each part OUT/gpu.json is written anew, and OUT/gpu.md from it, a table for
docs/benchmarks.md, so that what was measured counts if the time runs out; parts that
would begin after `--minutes` are left out. What fails is noted with its reason, and the
rest is done. Weights of ViTs and of SPiT are random, which makes no difference to time
or memory. `--tiny` takes seconds on a CPU and says nothing about speed.

Four parts: the rates of matrix products, the peak that the others are a share of;
features of three backbones at two sizes, and strokes on their tokens where they are;
SPiT twice, and against the CPU; memory that runs out, for a batch and for one pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import measure
from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.cli.bench import machine, matmul_rates, scribble_milliseconds
from napari_hrdv2.core.backbones.vit.backbone import ViTBackbone
from napari_hrdv2.core.devices import choose_device, choose_precision
from samples import make_sample

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone

BACKBONES = ("embedded", "dinov2-small", "dinov2-base")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    device: str
    sizes: tuple[int, ...] = (1036, 2048)  # px
    square: int = 8192  # side of the matrices that are multiplied
    repeats: int = 3
    labelled: int = 5000  # px
    strokes: int = 30
    spit: int = 1024  # px
    cramped: int = 1036  # px


TINY = {
    **{"sizes": (56, 75), "square": 64, "repeats": 1, "labelled": 300, "strokes": 2},
    **{"spit": 50, "cramped": 56},
}


# --- Features and strokes -------------------------------------------------------------
def features_and_strokes(
    plan: Plan, rates: dict[str, float], name: str, size: int
) -> dict[str, Any]:
    """Return what the features of one backbone take, and a stroke on them."""
    backbone = loaded(name, plan.device)
    watched = measure.Watched(backbone)
    image = make_sample("grains", (size, size)).image
    compute_features(image, watched, "identity")  # warm up
    if plan.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds, inside = [], []
    for _ in range(plan.repeats):
        watched.seconds, watched.passes = 0.0, 0
        begin = time.perf_counter()
        features = compute_features(image, watched)
        seconds.append(time.perf_counter() - begin)
        inside.append(watched.seconds)
    on_gpu = plan.device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    precision = str(choose_precision(backbone.device)).removeprefix("torch.")
    work = flop_of_a_pass(backbone, size) * watched.passes
    rate = work / statistics.median(inside)
    truth = measure.separable_truth(features)
    stroke = scribble_milliseconds(features, truth, plan.labelled, plan.strokes)
    return {
        "backbone": name,
        "size": size,
        "passes": watched.passes,
        "precision": precision,
        "seconds": statistics.median(seconds),
        "outside_network": 1 - statistics.median(inside) / statistics.median(seconds),
        "gflops": rate / 1e9,
        "share_of_peak": rate / rates[precision],
        "token_megabytes": features.nbytes / 1e6,
        "device_megabytes": None if peak is None else peak / 1e6,
        "stroke_milliseconds": stroke,
    }


def loaded(name: str, device: str) -> Backbone:
    """Return a backbone, with random weights where it does not bring any along."""
    backbone: Backbone = load_backbone(
        name, None if name == "embedded" else "random", device
    )
    return backbone


def flop_of_a_pass(backbone: Backbone, size: int) -> float:
    """Return the floating-point operations of one pass over a square image.

    Of a ViT they are reckoned as in measure.py, of another network counted by torch,
    which leaves out all but convolutions and matrix products.
    """
    if isinstance(backbone, ViTBackbone):
        side = -(-size // backbone.patch_size)
        return measure.flop(backbone.model.config, side * side)
    image = torch.rand(1, 1, size, size, device=backbone.device)
    with FlopCounterMode(display=False) as counter:
        backbone.tokens(image, stride=backbone.patch_size)
    return counter.get_total_flops()


# --- SPiT -----------------------------------------------------------------------------
def spit(plan: Plan) -> dict[str, Any]:
    """Return whether SPiT gives the same twice, and how far the CPU's is from it."""
    image = make_sample("grains", (plan.spit, plan.spit)).image
    pixels = torch.from_numpy(image)[None].float() / 255
    backbone = loaded("spit-small", plan.device)
    begin = time.perf_counter()
    tokens, labels = backbone.tokens(pixels)
    labels = labels.cpu()  # which waits for the device
    seconds = time.perf_counter() - begin
    again, labels_again = backbone.tokens(pixels)
    there, labels_there = loaded("spit-small", "cpu").tokens(pixels)
    same_regions = bool(torch.equal(labels, labels_again.cpu()))
    return {
        "size": plan.spit,
        "seconds": seconds,
        "regions": len(tokens),
        "same_regions_twice": same_regions,
        "largest_difference_twice": (
            largest_difference(tokens, again) if same_regions else None
        ),
        "regions_on_the_cpu": len(there),
        "borders_as_on_the_cpu": agreement(labels, labels_there.cpu()),
    }


def agreement(labels: torch.Tensor, others: torch.Tensor) -> float:
    """Return the share of neighbouring pixels that both part or both join."""
    same = [
        (first.diff(dim=axis) == 0) == (second.diff(dim=axis) == 0)
        for axis in (0, 1)
        for first, second in ((labels, others),)
    ]
    return float(torch.cat([each.flatten() for each in same]).float().mean())


def largest_difference(tokens: torch.Tensor, others: torch.Tensor) -> float:
    """Return it in units of the standard deviation of the tokens."""
    tokens, others = tokens.float().cpu(), others.float().cpu()
    return float((tokens - others).abs().max() / tokens.std())


# --- Memory that runs out -------------------------------------------------------------
def out_of_memory(plan: Plan, *, passes: float) -> dict[str, Any]:
    """Return what becomes of features where only so many of nine passes fit at once.

    On a GPU the memory of the process is limited; elsewhere the backbone says what
    torch says then.
    """
    image = make_sample("grains", (plan.cramped, plan.cramped)).image
    backbone = loaded("dinov2-small", plan.device)
    compute = partial(compute_features, image, transforms="shift:1", batch_size=9)
    on_gpu = plan.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    expected = compute(backbone).tokens.cpu()
    cramped, room = Cramped(backbone, passes), 0.0
    if on_gpu:
        room = (torch.cuda.max_memory_allocated() - before) * passes / 9
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with limited(room) if on_gpu else nullcontext():
            found = compute(cramped)
    return {
        "batches": cramped.batches,
        "ended_on": cramped.device.type,
        "seconds": time.perf_counter() - begin,
        "said": sorted({str(each.message) for each in said}),
        "largest_difference": largest_difference(expected, found.tokens),
    }


@contextmanager
def limited(room: float) -> Iterator[None]:
    """Leave the process so many bytes of the GPU beside those that it has."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    most = torch.cuda.memory_reserved() + room
    torch.cuda.set_per_process_memory_fraction(most / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class Cramped(measure.Watched):
    """A backbone that notes its batches and, on a CPU, refuses those too large."""

    def __init__(self, backbone: Backbone, passes: float) -> None:
        super().__init__(backbone)
        self.most = max(passes, 1)  # on a CPU one pass must do
        self.batches: list[int] = []  # that were tried

    def tokens(self, images: Any, **options: Any) -> Any:
        """Return the tokens, or run out of memory."""
        self.batches.append(len(images))
        if images.device.type == "cpu" and len(images) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().tokens(images, **options)


# --- All of it ------------------------------------------------------------------------
def parts(plan: Plan, results: dict[str, Any]) -> Iterator[tuple[str, Callable]]:
    """Yield what is measured, in order, under its name."""
    yield "matmul", lambda: matmul_rates(plan.square, plan.device)
    rates = results.get("matmul", {})
    for size in plan.sizes:
        for name in BACKBONES:
            yield (
                f"features {name} {size}",
                partial(features_and_strokes, plan, rates, name, size),
            )
    yield "spit", lambda: spit(plan)
    yield "a batch too large", lambda: out_of_memory(plan, passes=4)
    yield "a pass too large", lambda: out_of_memory(plan, passes=0.5)


def run(plan: Plan, out: Path, minutes: float) -> dict[str, Any]:
    """Measure part after part, and write what there is after each."""
    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    results: dict[str, Any] = {"machine": machine(), "plan": asdict(plan)}
    for name, work in parts(plan, results):
        if time.perf_counter() - begin > 60 * minutes:
            results[name] = {"failed": "there was no time left"}
        else:
            try:
                results[name] = work()
            except Exception as error:  # noqa: BLE001 - the others are done anyhow
                traceback.print_exc()
                results[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{time.perf_counter() - begin:.0f} s: {name}", flush=True)
        text = json.dumps(results, indent=1)
        (out / "gpu.json").write_text(text, encoding="utf-8")
        (out / "gpu.md").write_text(table(results), encoding="utf-8")
    return results


HEAD = (
    *("features", "passes", "seconds", "of the matmul peak", "outside the network"),
    *("tokens", "memory", "stroke: new pixels, fit, segmentation"),
)


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    about = results["machine"]
    rates = results.get("matmul", {})
    peaks = ", ".join(
        f"{rate / 1e12:.1f} TFLOP/s in {name}"
        for name, rate in rates.items()
        if name != "failed"
    )
    lines = [
        f"{about['gpu'] or about['system']}, torch {about['torch']}; matrix products: "
        f"{peaks}.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
    ]
    others = []
    for name, found in results.items():
        if "failed" in found:
            others.append(f"- {name}: failed, {found['failed']}")
        elif name.startswith("features "):
            lines.append(f"| {' | '.join(_cells(found))} |")
        elif name not in ("machine", "plan", "matmul"):
            told = ", ".join(f"{key} {value}" for key, value in found.items())
            others.append(f"- {name}: {told.replace('_', ' ')}")
    return "\n".join([*lines, "", *others, ""])


def _cells(found: dict[str, Any]) -> list[str]:
    memory, stroke = found["device_megabytes"], found["stroke_milliseconds"]
    steps = ", ".join(f"{stroke[step]:.1f}" for step in ("gather", "refit", "predict"))
    return [
        f"{found['backbone']}, {found['size']} px, {found['precision']}",
        str(found["passes"]),
        f"{found['seconds']:.3g}",
        f"{found['share_of_peak']:.0%}",
        f"{found['outside_network']:.0%}",
        f"{found['token_megabytes']:.0f} MB",
        "–" if memory is None else f"{memory:.0f} MB",
        f"{stroke['total']:.1f} ms: {steps}",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="A folder for gpu.json and gpu.md.")
    parser.add_argument("--device", default="auto", help="cuda, cpu or auto.")
    parser.add_argument("--minutes", type=float, default=8, help="No part after them.")
    parser.add_argument("--tiny", action="store_true", help="Small sizes, for a test.")
    chosen = parser.parse_args(arguments)
    device = choose_device(chosen.device).type
    plan = Plan(device, **(TINY if chosen.tiny else {}))
    print(table(run(plan, chosen.out, chosen.minutes)))


if __name__ == "__main__":
    main()
