"""How often the error bar of a phase fraction holds the true one, on random fields.

Run with::

    python benchmarks/error_bars.py

Fields are Gaussian noise, smoothed and cut at a level: 4 of 1600 × 1600 px for each
row, in 256 windows of 200 × 200 px. The last column is what the length should be: 1.96
standard deviations of the windows' fractions.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_hrdv2.core.measure import phase_fractions_with_error

SIDE, WINDOW, FIELDS = 1600, 200, 4


def windows(smoothing: float, fraction: float) -> np.ndarray:
    """Return label images of which 2 has that fraction in all."""
    found = []
    for seed in range(10, 10 + FIELDS):
        noise = np.random.default_rng(seed).standard_normal((SIDE, SIDE))
        field = gaussian_filter(noise, smoothing, mode="wrap")
        labels = np.where(field > np.quantile(field, 1 - fraction), 2, 1)
        parts = labels.reshape(SIDE // WINDOW, WINDOW, SIDE // WINDOW, WINDOW)
        found.append(parts.swapaxes(1, 2).reshape(-1, WINDOW, WINDOW))
    return np.concatenate(found)


def main() -> None:
    """Print the table as Markdown."""
    print("| smoothing | fraction | held | mean error | 1.96 deviations |")
    print("|---" * 5 + "|")
    for smoothing in (2, 4, 8):
        for fraction in (0.03, 0.1, 0.5):
            phases = [
                phase_fractions_with_error(labels, [2]).phases[0]
                for labels in windows(smoothing, fraction)
            ]
            off = np.array([phase.fraction - fraction for phase in phases])
            # A window without the class has no bar, and so does not hold.
            errors = np.array([phase.error or 0.0 for phase in phases])
            held = (np.abs(off) <= errors).mean()
            print(
                f"| {smoothing} px | {fraction:.0%} | {held:.0%} | {errors.mean():.4f} "
                f"| {1.96 * off.std():.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
