"""An hour's worth of strokes on an image of any size: what memory they leave behind.

Run with::

    python benchmarks/large_strokes.py [--side 20000] [--strokes 200] [--places 30]

Without a window: a session gets the image that ``large.py`` makes, from its file, and a
stroke at a time at one of some places, random ones all over it. After each the blocks
in a view of 850 × 700 px are segmented, as the window does it. After every 20 strokes
a line tells the memory, pages of the file included and not, and the median of the
seconds of processor time a stroke. Under Linux, what the allocator holds back is given
to the system before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from large import make, truth
from napari_hrdv2.core.classifier.samples import blank_labels
from napari_hrdv2.files import open_image
from napari_hrdv2.session import Session, Stage, compute
from napari_hrdv2.session.planes import Plane

VIEW, STROKE, WIDTH, EVERY = (700, 850), 60, 3, 20


def opened(path: Path, backbone: str) -> Session:
    """Return a session with an image that stays in its file, features ready."""
    image = open_image(path).data
    session = Session()
    session.configure(backbone=backbone, device="cpu")
    whole = Plane(
        lambda: np.asarray(image[:]),
        image.shape,
        image.dtype,
        lambda part: np.asarray(image[part]),
    )
    session.set_image(whole, str(path), name=path.name)
    session.compute_features()
    return session


def stroke(session: Session, labels: np.ndarray, corner: np.ndarray, random) -> None:
    """Paint a stroke in a view, and have what is in view segmented."""
    view = tuple(
        slice(at, at + size) for at, size in zip(corner.tolist(), VIEW, strict=True)
    )
    row = random.integers(view[0].start, view[0].stop - WIDTH)
    column = random.integers(view[1].start, view[1].stop - STROKE)
    inside = slice(row, row + WIDTH), slice(column, column + STROKE)
    labels[inside] = truth(*inside)
    session.set_scribbles(labels)
    request = session.train_request(visible=view, until=Stage.SEGMENTATION)
    session.accept(compute(request))
    if (rest := session.live.filling(visible=view)) is not None:
        compute(rest, partial=session.accept)


def main() -> None:
    """Print a line after every few strokes, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--strokes", type=int, default=200)
    parser.add_argument("--places", type=int, default=30)
    parser.add_argument("--backbone", default="filters")
    parser.add_argument("--folder", type=Path, help="where the image is, or is made")
    given = parser.parse_args()
    torch.set_num_threads(1)
    random, process = np.random.default_rng(0), psutil.Process()
    with tempfile.TemporaryDirectory() as temporary:
        image, _ = make(given.folder or Path(temporary), given.side)
        session = opened(image, given.backbone)
        labels = blank_labels((given.side,) * 2)  # as the layer of scribbles has them
        corners = random.integers(0, given.side - max(VIEW), (given.places, 2))
        taken: list[float] = []
        for number in range(given.strokes + 1):
            if number % EVERY == 0:
                gc.collect()
                if sys.platform == "linux":
                    ctypes.CDLL("libc.so.6").malloc_trim(0)
                memory = process.memory_full_info()
                told = {
                    "strokes": number,
                    "MB": round(memory.rss / 1e6),
                    "MB_but_for_shared_pages": round(memory.uss / 1e6),
                    "median_s": round(float(np.median(taken or [0.0])), 3),
                }
                print(json.dumps(told), flush=True)
                taken.clear()
            start = time.process_time()
            stroke(session, labels, random.choice(corners), random)
            taken.append(time.process_time() - start)


if __name__ == "__main__":
    main()
