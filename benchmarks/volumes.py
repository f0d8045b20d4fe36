"""Volumes: what three orientations and context along the axis gain, and what they take.

A generated volume of three phases that looks alike along all axes, with much noise and
with little, is painted on three planes and segmented; the score is that of all voxels.
Run with::

    python benchmarks/volumes.py [--side 64] [--backbone embedded filters]
    python benchmarks/volumes.py --planes 400 [--edge 1024] [--seconds 300] [--kill]

The second writes a Zarr of so many planes, paints on three and has `segment` stream it
in a process of its own, for so long. With ``--kill`` that is killed at three moments
and gone on with, and compared with one that was not.
"""

from __future__ import annotations

import argparse
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

LEVELS = np.array([0, 90, 128, 166])
NOISES = {"clean": 12.0, "noisy": 55.0}


def truth(size: tuple[int, int, int], seed: int = 0, scale: float = 4.0) -> np.ndarray:
    """Return phases 1 to 3 of a matrix with two kinds of blobs, (Z, Y, X) uint8."""
    random = np.random.default_rng(seed)
    large, small = (
        gaussian_filter(random.standard_normal(size, np.float32), each, mode="wrap")
        for each in (scale, 0.6 * scale)
    )
    phases = np.ones(size, np.uint8)
    phases[large > np.quantile(large, 0.7)] = 2
    phases[(small > np.quantile(small, 0.75)) & (phases == 1)] = 3
    return phases


def imaged(
    phases: np.ndarray,
    noise: float,
    seed: int = 1,
    blur: tuple[float, ...] = (0.7,) * 3,
) -> np.ndarray:
    """Return grey levels of phases, blurred a little, with independent noise."""
    grey = gaussian_filter(LEVELS[phases].astype(np.float32), blur)
    grey += np.random.default_rng(seed).normal(0, noise, phases.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)


def strokes(phases: np.ndarray, planes: list[int], seed: int = 2) -> np.ndarray:
    """Return labels of four short strokes of each class on each of some planes."""
    random = np.random.default_rng(seed)
    labels = np.zeros_like(phases)
    for z in planes:
        for label in (1, 2, 3):
            for place in random.permutation(np.argwhere(phases[z] == label))[:4]:
                row, start = place.tolist()
                along = np.arange(start, min(start + 12, phases.shape[2]))
                same = phases[z, row, along] == label
                along = along[np.logical_and.accumulate(same)]
                labels[z, row, along] = label
    return labels


def miou(found: np.ndarray, phases: np.ndarray) -> float:
    """Return the mean IoU of the three classes."""
    pairs = [(found == label, phases == label) for label in (1, 2, 3)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))


def segmented(volume: np.ndarray, labels: np.ndarray, backbone, planes, width):
    """Return a volume segmented in memory, by `VolumeFeatures`."""
    from napari_hrdv2 import PixelClassifier
    from napari_hrdv2.core.features.volumes import volume_features
    from napari_hrdv2.files.volumes import LazyVolume

    data = LazyVolume(Path("volume"), volume, None)
    data.planes, data.width = planes, width
    features = volume_features(data, backbone, value_range=(0, 255))
    model = PixelClassifier().fit(features, labels.reshape(features.shape[1:]))
    return model.predict(features).reshape(volume.shape)


def compare(side: int, names: list[str], seeds: int) -> None:
    """Print the mean IoU of planes alone, with context, and of three orientations."""
    from napari_hrdv2.core.backbones import load_backbone

    ways = [("z", 0.0), ("z", 1.0), ("z", 2.0), ("xyz", 0.0), ("xyz", 1.0)]
    print(f"| backbone | volume | {' | '.join(f'{p} {w:g}' for p, w in ways)} |")
    print("|---" * (2 + len(ways)) + "|")
    for name in names:
        backbone = load_backbone(name)
        kinds = [*NOISES, "sections", "unrelated planes"]
        for kind in kinds:
            scores = []
            for seed in range(seeds):
                phases, blur = truth((side, side, side), seed), (0.7, 0.7, 0.7)
                if kind == "sections":  # four times as far apart as pixels
                    phases = truth((4 * side, side, side), seed)[::4]
                    blur = (0.0, 0.7, 0.7)
                elif kind not in NOISES:  # each plane from another place
                    each = [truth((1, side, side), 99 * seed + z) for z in range(side)]
                    phases, blur = np.concatenate(each), (0.0, 0.7, 0.7)
                noise = NOISES.get(kind, NOISES["noisy"])
                volume = imaged(phases, noise, seed + 50, blur)
                labels = strokes(phases, [side // 4, side // 2, 3 * side // 4], seed)
                scores.append(
                    [
                        miou(segmented(volume, labels, backbone, *way), phases)
                        for way in ways
                    ]
                )
            row = [f"{score:.3f}" for score in np.mean(scores, 0)]
            print(f"| {name} | {kind} | {' | '.join(row)} |", flush=True)


def write_stack(folder: Path, planes: int, edge: int) -> None:
    """Write a Zarr of planes that drift, and one of labels on three of them."""
    import zarr

    from large import LEVELS, truth

    made = {"shape": (planes, edge, edge), "chunks": (1, 512, 512), "dtype": "u1"}
    image = zarr.create_array(folder / "volume.zarr", **made)
    labels = zarr.create_array(folder / "labels.zarr", **made)
    all_phases = truth(slice(0, 4 * planes + edge), slice(0, edge))
    for z in range(planes):
        phases = all_phases[4 * z : 4 * z + edge]
        noise = np.random.default_rng(z).normal(0, 20, phases.shape)
        grey = np.asarray(LEVELS)[phases - 1] + noise
        image[z] = np.clip(grey, 0, 255).astype(np.uint8)
        if z in (planes // 4, planes // 2, 3 * planes // 4):
            labels[z] = strokes(phases[None], [0], z)[0]


def stream(folder: Path, out: str, how: list[str], *, most: int, seconds: float):
    """Run `segment` for so long, or so many planes; return planes, its CPU s, peak GB.

    The seconds are those since the first plane was done.
    """
    command = [sys.executable, "-m", "napari_hrdv2", "segment", "volume.zarr"]
    command += ["-l", "labels.zarr", "-o", out, *how]
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    done, place = 0, Path("/proc") / str(running.pid)
    peak, cpu, first, start = 0.0, 0.0, None, time.monotonic()
    marks = folder / f"{out}.unfinished" / "done.txt"
    while running.poll() is None and time.monotonic() - start < seconds:
        time.sleep(0.1)
        try:
            status = (place / "status").read_text().split("VmHWM:")[1]
            ticks = (place / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
        except (OSError, IndexError):
            continue
        peak, cpu = int(status.split()[0]) / 1e6, sum(map(int, ticks)) / 100
        lines = marks.read_text().split("\n")[1:] if marks.exists() else []
        done = max(done, len(lines))  # the folder goes in the end
        first = first or ((done, cpu) if done else None)
        if done >= most:
            break
    if running.poll() is None:
        running.send_signal(signal.SIGKILL)
        running.wait()
    since, planes = (0.0, 0) if first is None else (cpu - first[1], done - first[0])
    return done, since / max(planes, 1), peak, running.returncode == 0


def streamed(planes: int, edge: int, seconds: float, how: list[str], kill: bool):
    """Print how fast a stack goes and in how much memory, and that ends do no harm."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_stack(folder, planes, edge)
        given = {"most": planes + 1, "seconds": seconds}
        done, cpu, peak, is_whole = stream(folder, "whole.zarr", how, **given)
        print(f"{planes} planes of {edge} x {edge}, {' '.join(how)}: {done} planes,")
        print(
            f"{cpu:.2f} s of processor each, {peak:.2f} GB at most, whole: {is_whole}"
        )
        if not kill:
            return
        for part in (1, 2, 3):
            most = part * planes // 4
            ended = stream(folder, "parts.zarr", how, **{**given, "most": most})
            print(f"killed at {ended[0]} planes")
        assert stream(folder, "parts.zarr", how, **given)[3]
        whole, parts = folder / "whole.zarr", folder / "parts.zarr"
        # Their metadata have their names.
        files = [p for p in whole.rglob("*") if p.is_file() and p.name != ".zattrs"]
        others = [parts / path.relative_to(whole) for path in files]
        pairs = zip(files, others, strict=True)
        same = sum(a.read_bytes() == b.read_bytes() for a, b in pairs)
        print(f"{same} of {len(files)} files are identical")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--backbone", nargs="+", default=["embedded", "filters"])
    parser.add_argument("--planes", type=int)
    parser.add_argument("--edge", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--along", default="z", help="what --planes of segment is")
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    print(f"{platform.machine()}, {platform.system()}, Python {sys.version.split()[0]}")
    if given.planes:
        how = ["-b", given.backbone[0], "--planes", given.along]
        streamed(given.planes, given.edge, given.seconds, how, given.kill)
    else:
        compare(given.side, given.backbone, given.seeds)


if __name__ == "__main__":
    main()
