"""Generated pictures as tasks: strokes to learn from, pixels to be right about.

A task is of one picture, or, in an episode, of the pictures of a series: strokes on one
or two of them, and pixels of all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from micrographs import (
    Micrograph,
    draw_scribbles,
    framed,
    random_micrograph,
    random_series,
)
from napari_hrdv2.core.backbones.embedded.backbone import bank_planes, standardised
from napari_hrdv2.core.backbones.filters import filter_names
from napari_hrdv2.core.features.levels import Levels, aligned_levels, image_levels

BANK_CHANNELS = len(filter_names(3))  # grey pictures fill the rest with zeros
SUPPORT_PER_CLASS, QUERY = 384, 2048
STROKES = {1: 0.15, 2: 0.2, 3: 0.15, 4: 0.15, 6: 0.15, 9: 0.1, 12: 0.1}  # a class
SERIES_STROKES, MOST_OF_A_SERIES = (1, 2, 3), 6
FRAMED = 0.15  # share of the pictures with a data bar, captions or dead borders
LONG, SHORT = (8.0, 60.0), (8.0, 30.0)  # strokes on one picture, and on a series
# Side of the pictures, how many make a batch, and how often.
SIZES = ((128, 16, 0.05), (192, 8, 0.25), (256, 5, 0.35), (384, 2, 0.25), (512, 1, 0.1))


class Pixels(NamedTuple):
    """Pixels of one or more pictures and what is known of them.

    Attributes
    ----------
    pictures : (N,) int64 tensor
        The numbers of the pictures in their batch, in ascending order.
    places : (N, 2) int64 tensor
        Rows and columns.
    classes : (N,) int64 tensor
        0 … K - 1; unlabelled pixels are in no task.
    bank : (N, BANK_CHANNELS) float16 tensor
        What the filter bank says there.
    """

    pictures: Tensor
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
    visits : tuple of visits, each a tuple of pairs of `Pixels`
        Support and query of each picture, or of each series.
    """

    images: Tensor
    visits: tuple[tuple[tuple[Pixels, Pixels], ...], ...]


def make_batch(seed: int, number: int, visits: int, series: float = 0.0) -> Batch:
    """Return a batch; the same seed and number give the same one.

    `series` is the share of the batches that are of series.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, number])
    sizes, counts, shares = zip(*SIZES, strict=True)
    which = rng.choice(len(SIZES), p=shares)
    size, count = sizes[which], counts[which]
    of_series = count > 1 and series > 0 and rng.random() < series
    images: list[Tensor] = []
    tasks = []
    while (left := count - len(images)) > 0:
        seed = int(rng.integers(1 << 62))
        if of_series:
            many = min(int(rng.integers(2, MOST_OF_A_SERIES + 1)), left)
            many += left - many == 1  # none is left alone
            entries = random_series(seed, many, size)
        else:
            entries = [random_micrograph(seed, size)]
        if rng.random() < FRAMED:
            frame = int(rng.integers(1 << 62))
            entries = [framed(np.random.default_rng(frame), each) for each in entries]
        labelled = int(rng.integers(1, 3)) if of_series else 1
        levels = _levels(rng, entries, labelled) if of_series else [None]
        inputs = [
            network_input(entry.image, own)
            for entry, own in zip(entries, levels, strict=True)
        ]
        truth = [entry.labels for entry in entries]
        banks = [bank for _, bank in inputs]
        tasks.append(
            [_task(rng, truth, banks, len(images), labelled) for _ in range(visits)]
        )
        images += [image for image, _ in inputs]
    return Batch(torch.stack(images).half(), tuple(zip(*tasks, strict=True)))


def network_input(
    image: NDArray[np.uint8], levels: Levels | None = None
) -> tuple[Tensor, Tensor]:
    """Return the standardised picture (3, H, W) and its filter channels, halved."""
    planes = torch.from_numpy(image).float()
    planes = planes[None] if planes.ndim == 2 else planes.movedim(-1, 0)
    planes = standardised(planes[None], levels)
    return planes[0].expand(3, -1, -1), bank_planes(planes)[0]


def _levels(
    rng: np.random.Generator, entries: list[Micrograph], labelled: int
) -> list[Levels | None]:
    """Return levels as one of the normalisations of a series would."""
    images = [entry.image for entry in entries]
    kind = rng.choice(["image", "shared", "matched"])
    if kind == "image":
        return [None] * len(images)
    if kind == "shared":
        return [image_levels(images[:labelled])] * len(images)
    # What a match would find that is right about everything.
    labels = [entry.labels for entry in entries]
    return list(aligned_levels(images, labels, exchanges=False))


def _task(
    rng: np.random.Generator,
    truth: list[NDArray[np.uint8]],
    banks: list[Tensor],
    first: int,
    labelled: int,
) -> tuple[Pixels, Pixels]:
    """Return support, of as many pictures as are labelled, and query, of all."""
    if len(truth) == 1:
        strokes = int(rng.choice(list(STROKES), p=list(STROKES.values())))
        length = LONG
    else:
        strokes, length = int(rng.choice(SERIES_STROKES)), SHORT
    wrong = 0.1 if rng.random() < 0.3 else 0.0
    support, query = [], []
    for number, (labels, bank) in enumerate(zip(truth, banks, strict=True)):
        drawn = np.zeros_like(labels)
        if number < labelled:
            drawn = draw_scribbles(rng, labels, strokes, length=length, wrong=wrong)
        for label in range(1, int(drawn.max()) + 1):
            there = np.flatnonzero(drawn == label)
            if len(there) > SUPPORT_PER_CLASS:
                there = rng.choice(there, SUPPORT_PER_CLASS, replace=False)
            support.append(_pixels(first + number, there, drawn, bank))
        unseen = np.flatnonzero((drawn == 0) & (labels > 0))
        many = QUERY // len(truth)
        there = rng.choice(unseen, many, replace=len(unseen) < many)
        query.append(_pixels(first + number, there, labels, bank))
    return _joined(support), _joined(query)


def _joined(parts: list[Pixels]) -> Pixels:
    return Pixels(*map(torch.cat, zip(*parts, strict=True)))


def _pixels(
    picture: int, places: NDArray[np.intp], labels: NDArray[np.uint8], bank: Tensor
) -> Pixels:
    rows, columns = np.unravel_index(places, labels.shape)
    spots = torch.from_numpy(np.stack([rows, columns], 1))
    values = torch.zeros(len(places), BANK_CHANNELS, dtype=torch.float16)
    values[:, : len(bank)] = read(bank.float(), spots, labels.shape).half()
    classes = torch.from_numpy(labels.ravel()[places].astype(np.int64) - 1)
    return Pixels(torch.full_like(classes, picture), spots, classes, values)


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
    seed: int,
    start: int,
    visits: int,
    *,
    processes: int,
    series: float = 0.0,
    ahead: int = 12,
) -> Iterator[Batch]:
    """Yield batch after batch from number `start`, made by other processes."""
    with ProcessPoolExecutor(processes) as pool:
        waiting: deque[Future[Batch]] = deque()
        number = start
        while True:
            while len(waiting) < ahead:
                waiting.append(pool.submit(make_batch, seed, number, visits, series))
                number += 1
            yield waiting.popleft().result()
