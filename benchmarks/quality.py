"""mIoU on a folder of cases beside the baselines in its manifest, as Markdown.

Run with::

    python benchmarks/quality.py CASES_DIR [--backbone filters]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

SCRIBBLES = ("lo", "a", "hi")
BASELINES = {"LogReg": "linear, 20 filters", "RF100": "forest, 20 filters"}


def evaluate(folder: Path, backbone: str, scribbles: str) -> dict[str, float]:
    """Return the mIoU of each case."""
    command = [sys.executable, "-m", "napari_hrdv2", "evaluate", str(folder)]
    command += ["--backbone", backbone, "--scribbles", scribbles, "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cases = json.loads(output.splitlines()[-1])["cases"]
    return {case["id"]: case["miou"] for case in cases}


def mean(values: list[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def main() -> None:
    """Print two tables: means for each set of scribbles, and sources for set `a`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="filters")
    options = parser.parse_args()
    manifest = json.loads((options.folder / "manifest.json").read_text())
    ours = {s: evaluate(options.folder, options.backbone, s) for s in SCRIBBLES}

    def baseline(name: str, scribbles: str) -> list[float]:
        return [case["baseline_miou"][f"{name}/{scribbles}"] for case in manifest]

    print("| mean mIoU | " + " | ".join(f"`{s}`" for s in SCRIBBLES) + " |")
    print("|---" * (1 + len(SCRIBBLES)) + "|")
    for name, title in BASELINES.items():
        means = [mean(baseline(name, s)) for s in SCRIBBLES]
        print(f"| {title} | " + " | ".join(f"{value:.3f}" for value in means) + " |")
    means = [mean(list(ours[s].values())) for s in SCRIBBLES]
    values = " | ".join(f"**{value:.3f}**" for value in means)
    print(f"| linear, `{options.backbone}` | {values} |")
    print()
    print(f"| source, `a` | cases | {' | '.join(BASELINES.values())} | ours |")
    print("|---" * (3 + len(BASELINES)) + "|")
    by_source = defaultdict(list)
    for case in manifest:
        by_source[case["source"]].append(case)
    for source, cases in by_source.items():
        row = [mean([c["baseline_miou"][f"{n}/a"] for c in cases]) for n in BASELINES]
        row.append(mean([ours["a"][case["id"]] for case in cases]))
        values = " | ".join(f"{value:.3f}" for value in row)
        print(f"| {source} | {len(cases)} | {values} |")


if __name__ == "__main__":
    main()
