"""Generated pictures as tasks: strokes to learn from, pixels to be right about."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from micrographs import draw_scribbles, random_micrograph
from napari_hrdv2.core.backbones.embedded.backbone import bank_planes, standardised
from napari_hrdv2.core.backbones.filters import filter_names

BANK_CHANNELS = len(filter_names(3))  # grey pictures fill the rest with zeros
SUPPORT_PER_CLASS, QUERY = 384, 2048
STROKES = {1: 0.15, 2: 0.2, 3: 0.15, 4: 0.15, 6: 0.15, 9: 0.1, 12: 0.1}  # a class
# Side of the pictures, how many make a batch, and how often.
SIZES = ((128, 16, 0.05), (192, 8, 0.25), (256, 5, 0.35), (384, 2, 0.25), (512, 1, 0.1))


@dataclass(frozen=True)
class Pixels:
    """Pixels of one picture and what is known of them.

    Attributes
    ----------
    places : (N, 2) int64 tensor
        Rows and columns.
    classes : (N,) int64 tensor
        0 … K - 1.
    bank : (N, BANK_CHANNELS) float16 tensor
        What the filter bank says there.
    """

    places: Tensor
    classes: Tensor
    bank: Tensor


@dataclass(frozen=True)
class Batch:
    """Pictures of one size, each with the tasks of several visits.

    Attributes
    ----------
    images : (B, 3, H, W) float16 tensor
        Standardised.
    visits : tuple of visits, each a tuple of B pairs of `Pixels`
        Support and query of each picture.
    """

    images: Tensor
    visits: tuple[tuple[tuple[Pixels, Pixels], ...], ...]


def make_batch(seed: int, number: int, visits: int) -> Batch:
    """Return a batch; the same seed and number give the same one."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, number])
    sizes, counts, shares = zip(*SIZES, strict=True)
    which = rng.choice(len(SIZES), p=shares)
    images, tasks = [], []
    for _ in range(counts[which]):
        entry = random_micrograph(int(rng.integers(1 << 62)), sizes[which])
        image, bank = network_input(entry.image)
        images.append(image)
        tasks.append([_task(rng, entry.labels, bank) for _ in range(visits)])
    return Batch(torch.stack(images).half(), tuple(zip(*tasks, strict=True)))


def network_input(image: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Return the standardised picture (3, H, W) and its filter channels, halved."""
    planes = torch.from_numpy(image).float()
    planes = planes[None] if planes.ndim == 2 else planes.movedim(-1, 0)
    planes = standardised(planes[None])
    return planes[0].expand(3, -1, -1), bank_planes(planes)[0]


def _task(
    rng: np.random.Generator, labels: NDArray[np.uint8], bank: Tensor
) -> tuple[Pixels, Pixels]:
    strokes = int(rng.choice(list(STROKES), p=list(STROKES.values())))
    wrong = 0.1 if rng.random() < 0.3 else 0.0
    drawn = draw_scribbles(rng, labels, strokes, wrong=wrong)
    support = []
    for label in range(1, int(labels.max()) + 1):
        there = np.flatnonzero(drawn == label)
        if len(there) > SUPPORT_PER_CLASS:
            there = rng.choice(there, SUPPORT_PER_CLASS, replace=False)
        support.append(there)
    unseen = np.flatnonzero(drawn == 0)
    query = rng.choice(unseen, QUERY, replace=len(unseen) < QUERY)
    return (
        _pixels(np.concatenate(support), drawn, bank),
        _pixels(query, labels, bank),
    )


def _pixels(
    places: NDArray[np.intp], labels: NDArray[np.uint8], bank: Tensor
) -> Pixels:
    rows, columns = np.unravel_index(places, labels.shape)
    spots = torch.from_numpy(np.stack([rows, columns], 1))
    values = torch.zeros(len(places), BANK_CHANNELS, dtype=torch.float16)
    values[:, : len(bank)] = read(bank.float(), spots, labels.shape).half()
    classes = torch.from_numpy(labels.ravel()[places].astype(np.int64) - 1)
    return Pixels(spots, classes, values)


def read(grid: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the channels of a (C, h, w) grid at pixels of an image, (N, C)."""
    # A pixel's centre is half a pixel from the border, as grid_sample counts it.
    places = (2 * places + 1) / torch.tensor(shape) - 1
    return functional.grid_sample(
        grid[None],
        places.flip(1)[None, None],
        padding_mode="border",
        align_corners=False,
    )[0, :, 0].T


def stream(
    seed: int, start: int, visits: int, *, processes: int, ahead: int = 12
) -> Iterator[Batch]:
    """Yield batch after batch from number `start`, made by other processes."""
    with ProcessPoolExecutor(processes) as pool:
        waiting: deque[Future[Batch]] = deque()
        number = start
        while True:
            while len(waiting) < ahead:
                waiting.append(pool.submit(make_batch, seed, number, visits))
                number += 1
            yield waiting.popleft().result()
