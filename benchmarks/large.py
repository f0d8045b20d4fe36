"""A micrograph of any size in three phases, and what segmenting it takes.

It is made tile by tile, from waves that have no period, so that the truth of any window
is known. Run with::

    python benchmarks/large.py [--sides 1024 4000 6000] [--backbone filters]

Each side is segmented in a process of its own, by blocks unless it is the first, which
is done both ways. Peak memory is that of the process, the interpreter and torch
included. With ``--seconds`` a run is ended by Ctrl+C after so many, and what it has
done by then is told.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile

from napari_hrdv2.files import open_image, write_labels

TILE, WAVES, LEVELS, NOISE = 512, 24, (70, 128, 190), 14.0
CUT = 0.45  # deviations of the field at which phases meet


def truth(rows: slice, columns: slice) -> np.ndarray:
    """Return the phases 1 to 3 in a window of the plane, uint8."""
    random = np.random.default_rng(0)
    field = np.zeros((rows.stop - rows.start, columns.stop - columns.start))
    for _ in range(WAVES):
        angle, length, phase = random.uniform((0, 24, 0), (np.pi, 90, 2 * np.pi))
        step = 2 * np.pi / length
        down = np.exp(1j * step * np.sin(angle) * np.arange(rows.start, rows.stop))
        along = np.arange(columns.start, columns.stop)
        right = np.exp(1j * (step * np.cos(angle) * along + phase))
        field += np.outer(down, right).real
    field /= np.sqrt(WAVES / 2)
    return (1 + (field > -CUT) + (field > CUT)).astype(np.uint8)


def tiles(side: int) -> Iterator[np.ndarray]:
    """Yield the tiles of the micrograph, row by row."""
    for top in range(0, side, TILE):
        for left in range(0, side, TILE):
            window = slice(top, top + TILE), slice(left, left + TILE)
            noise = np.random.default_rng([top, left]).normal(0, NOISE, (TILE, TILE))
            grey = np.asarray(LEVELS)[truth(*window) - 1] + noise
            yield np.clip(grey, 0, 255).astype(np.uint8)


def make(folder: Path, side: int) -> tuple[Path, Path]:
    """Write the micrograph as tiled BigTIFF, and scribbles of three phases."""
    image, labels = folder / f"large{side}.tif", folder / f"labels{side}.tif"
    if not image.exists():
        about = {"shape": (side, side), "dtype": np.uint8, "tile": (TILE, TILE)}
        tifffile.imwrite(image, tiles(side), bigtiff=True, **about)
    painted = np.zeros((side, side), np.uint8)
    # Strokes of 3 px in a field of view at the upper left.
    for row in range(60, min(side, 1000), 180):
        stroke = slice(row, row + 3), slice(40, min(side, 1000))
        inside = truth(*stroke)
        inside[:, ::50] = 0
        painted[stroke] = inside
    write_labels(labels, painted)
    return image, labels


def segmented(
    image: Path,
    labels: Path,
    backbone: str,
    *,
    by_blocks: bool,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Return processor time, peak memory and where the result is."""
    out = image.with_name(f"{image.stem}_{backbone}{'.zarr' if by_blocks else '.tif'}")
    command = [sys.executable, "-m", "napari_hrdv2", "segment", image, "-l", labels]
    command += ["-b", backbone, "-o", out, "--json", *(["--blocks"] * by_blocks)]
    start = time.monotonic()
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        before = interrupted(process, out, seconds) if seconds else None
        said = process.stdout.read().splitlines()
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    found = {
        "processor_s": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - start,
        "peak_MB": used.ru_maxrss / 1000,
    }
    if before is not None and process.returncode:
        return found | part_done(out, found["processor_s"], before)
    if process.returncode:
        raise RuntimeError(f"{image} could not be segmented")
    found["fractions"] = json.loads(said[-1])["phase_fractions"]
    return found | {"out": out}


def interrupted(process: subprocess.Popen, out: Path, seconds: float) -> float:
    """End a run after some seconds; return its processor time before the blocks."""
    end, before = time.monotonic() + seconds, 0.0
    done = out.with_name(f"{out.name}.unfinished") / "done.txt"
    running = psutil.Process(process.pid)  # `poll` would take what it used away
    while time.monotonic() < end and running.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.5)
        if not done.exists():
            before = sum(running.cpu_times()[:2]) or before
    os.kill(process.pid, signal.SIGINT)
    return before


def part_done(out: Path, processor_s: float, before: float) -> dict[str, Any]:
    """Return how many blocks a run had done, and its rate but for the first."""
    folder = out.with_name(f"{out.name}.unfinished")
    if not (folder / "done.txt").exists():
        return {"blocks": 0}
    _, shape, block, *_ = json.loads((folder / "made_from.json").read_text())
    pixels = [
        (min(top + block, shape[0]) - top) * (min(left + block, shape[1]) - left)
        for top, left, _ in (
            map(int, line.split())
            for line in (folder / "done.txt").read_text().split("\n")
            if line
        )
    ]
    rate = (processor_s - before) / sum(pixels[1:]) * 1e6
    return {"blocks": len(pixels), "block": block, "s_per_MP_after_the_first": rate}


def mean_iou(out: Path, side: int) -> float:
    """Return the mean IoU of the three phases over the whole image."""
    found, confusion = open_image(out).data, np.zeros((4, 4), np.int64)
    for top in range(0, side, TILE):
        rows = slice(top, min(top + TILE, side))
        wanted = truth(rows, slice(0, side))
        pairs = 4 * wanted.astype(np.int64) + np.asarray(found[rows])
        confusion += np.bincount(pairs.ravel(), minlength=16).reshape(4, 4)
    both = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - both
    return float((both[1:] / union[1:]).mean())


def main() -> None:
    """Print a line for each run, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 4000, 6000])
    parser.add_argument("--backbone", default="filters")
    parser.add_argument("--folder", type=Path, help="where to keep all of it")
    parser.add_argument("--seconds", type=float, help="of each side but the first")
    parser.add_argument("--make-only", action="store_true")
    given = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for number, side in enumerate(given.sides):
            start = time.process_time()
            image, labels = make(folder, side)
            print(f"{side}² px made in {time.process_time() - start:.0f} s")
            if given.make_only:
                continue
            for by_blocks in (False, True) if number == 0 else (True,):
                found = segmented(
                    image,
                    labels,
                    given.backbone,
                    by_blocks=by_blocks,
                    seconds=given.seconds if number else None,
                )
                if "out" in found:
                    found["mIoU"] = mean_iou(found.pop("out"), side)
                    found["processor_s_per_MP"] = found["processor_s"] / side**2 * 1e6
                rounded = {
                    name: round(value, 4) if isinstance(value, float) else value
                    for name, value in found.items()
                }
                about = {"side": side, "backbone": given.backbone, "blocks": by_blocks}
                print(json.dumps(about | rounded), flush=True)


if __name__ == "__main__":
    main()
