"""Draw the learning curve of a run.

Run with::

    python training/curve.py RUN_DIR/log.csv docs/images/training.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SMOOTH = 9  # reports of which one point is the mean


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    with options.log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = np.array([int(row["step"]) for row in rows])
    losses = np.array([float(row["loss"]) for row in rows])
    kernel = np.ones(SMOOTH) / SMOOTH
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="0.8", label=f"mean of {steps[0]} steps")
    middle = steps[SMOOTH // 2 : len(steps) - SMOOTH // 2]
    axes.plot(
        middle,
        np.convolve(losses, kernel, "valid"),
        label=f"mean of {steps[0] * SMOOTH}",
    )
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy of unseen pixels")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(options.picture, dpi=120)


if __name__ == "__main__":
    main()
