"""Two versions of the package in turn: a stroke, features, and importing.

    python benchmarks/versions.py OLD_CHECKOUT NEW_CHECKOUT [--runs 10] [--backbone B]

Each run is a process of its own. It computes the features of a generated image of
1036 × 1036 px, paints 5 000 px, and then takes the median over twenty further small
scribbles of what `Session.train` takes: read, fit, segment. The last column is the
ratio of the medians of the new version and the old one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

RUN = """
import json, statistics, sys, time
start = time.perf_counter()
import napari_hrdv2 as hr
import_time = time.perf_counter() - start
import numpy as np
from napari_hrdv2.session import Session

SIDE, PAINTED, SCRIBBLES = 1036, 5000, 20
rng = np.random.default_rng(0)
rows, columns = np.mgrid[:SIDE, :SIDE]
phase = (np.hypot(rows % 130 - 65, columns % 130 - 65) < 38) + (columns > 700)
image = phase * 60.0 + 20 * rng.standard_normal((SIDE, SIDE)) + 60
image = np.clip(image, 0, 255).astype(np.uint8)
labels = np.zeros((SIDE, SIDE), np.uint8)
for _ in range(PAINTED // 100):
    top, left = rng.integers(0, SIDE - 10, 2)
    labels[top : top + 10, left : left + 10] = phase[top + 5, left + 5] + 1
session = Session()
session.configure(backbone=sys.argv[1], device="cpu", **json.loads(sys.argv[2]))
session.set_image(image)
session.set_scribbles(labels)
start = time.perf_counter()
session.compute_features()
features_time = time.perf_counter() - start
session.train()
times = []
for _ in range(SCRIBBLES):
    top, left = rng.integers(0, SIDE - 40, 2)
    labels[top : top + 4, left : left + 30] = phase[top, left] + 1
    session.set_scribbles(labels)
    start = time.perf_counter()
    session.train()
    times.append(time.perf_counter() - start)
print(json.dumps({
    "stroke": statistics.median(times), "features": features_time,
    "import": import_time, "share": session.phase_fractions(),
}))
"""


def run(checkout: Path, backbone: str, options: str) -> dict[str, float]:
    """Return the times of one process in seconds."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", RUN, backbone, options]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run both versions in turn and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--options", default="{}", help="JSON for Session.configure")
    chosen = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
    for _ in range(chosen.runs):
        for name, checkout in (("old", chosen.old), ("new", chosen.new)):
            found[name].append(run(checkout, chosen.backbone, chosen.options))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(
        f"{'median of ' + str(chosen.runs):16s}{'old':>10s}{'new':>10s}{'new/old':>9s}"
    )
    for what in ("stroke", "features", "import"):
        old, new = (statistics.median(r[what] for r in found[n]) for n in found)
        print(f"{what:16s}{old * 1e3:8.1f} ms{new * 1e3:8.1f} ms{new / old:8.2f}")


if __name__ == "__main__":
    main()
