"""Train the embedded backbone on generated micrographs.

Run with::

    python training/train.py --out RUN_DIR --steps 12000 [--seed 0]

Run again to go on where it stopped. RUN_DIR then holds ``state.pt``, ``log.csv`` and
``embedded.safetensors``, the file that the package ships. With ``--start FILE`` a new
run begins with the weights of such a file, at a lower ``--rate``. With ``--series 0.5``
half of the batches are of series: strokes on one or two pictures of a material, and the
loss on all of them.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import random
import time
from collections import deque
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from head import RidgeHead, balanced_loss
from napari_hrdv2.core.backbones.embedded.network import (
    ConvNet,
    ConvNetConfig,
    load_weights,
    save_weights,
)
from napari_hrdv2.core.devices import choose_precision
from tasks import BANK_CHANNELS, Batch, Pixels, read, stream

PEAK_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 1e-2, 300
# Logarithms of the head's penalty and scale under which the weights that ship have the
# least loss; their file does not keep them, and from others training does harm.
START_PENALTY, START_SCALE = 2.0, 1.9
WITHOUT_BANK = 0.2  # how often the features must do without the filter bank
VISITS, MEMORY = 2, 64  # visits of a picture; batches that wait for their next one
AVERAGE_OVER = 500  # steps of the running mean of the weights
REPORT_EVERY, SAVE_EVERY = 50, 180  # steps; seconds


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--rate", type=float, default=PEAK_RATE)
    parser.add_argument("--series", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    training = TrainingRun(
        options.out,
        options.steps,
        options.seed,
        rate=options.rate,
        start=options.start,
        series=options.series,
    )
    training.run(options.processes)


class TrainingRun:
    """Network, head and optimiser, with their state on disk."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        seed: int,
        *,
        rate: float = PEAK_RATE,
        start: Path | None = None,
        series: float = 0.0,
    ) -> None:
        self.folder, self.steps, self.seed = folder, steps, seed
        self.rate, self.start, self.series = rate, start, series
        self.step, self.drawn, self.seconds = 0, 0, 0.0
        self.network = ConvNet(ConvNetConfig())
        self.head = RidgeHead(self.network.config.channels + BANK_CHANNELS)
        if start is not None:
            # Its normalisation is folded into the convolutions, and stays so.
            weights = load_weights(start)
            self.network = weights.network.requires_grad_(True)
            self.head.log_trust.data.copy_(weights.channel_weights.log())
            self.head.log_penalty.data.fill_(START_PENALTY)
            self.head.log_scale.data.fill_(START_SCALE)
        self.network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        # Where the processor is not made for bfloat16 it would be the slower one.
        self.precision = choose_precision(torch.device("cpu"))
        parameters = [*self.network.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, rate, weight_decay=WEIGHT_DECAY)
        if (folder / "state.pt").exists():
            self._load(torch.load(folder / "state.pt", weights_only=True))

    def run(self, processes: int) -> None:
        """Train to the last step, leaving a checkpoint every few minutes."""
        chance = random.Random(self.seed * 1000003 + self.step)
        again: deque[tuple[Batch, int]] = deque()
        batches = stream(
            self.seed, self.drawn, VISITS, processes=processes, series=self.series
        )
        losses, saved = [], time.monotonic()
        while self.step < self.steps:
            started = time.monotonic()
            if len(again) > MEMORY:
                again.rotate(chance.randrange(len(again)))
                batch, visit = again.popleft()
            else:
                batch, visit = next(batches), 0
                self.drawn += 1
            if visit + 1 < VISITS:
                again.append((batch, visit + 1))
            losses.append(self._learn(batch, visit, chance))
            self.seconds += time.monotonic() - started
            if self.step % REPORT_EVERY == 0:
                self._report(sum(losses) / len(losses))
                losses = []
            if time.monotonic() - saved > SAVE_EVERY or self.step == self.steps:
                self._save()
                saved = time.monotonic()

    def _learn(self, batch: Batch, visit: int, chance: random.Random) -> float:
        """Take one step; return the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * self._rate()
        flips = [axis for axis in (2, 3) if chance.random() < 0.5]
        images = batch.images.flip(flips) if flips else batch.images
        images = images.float().contiguous(memory_format=torch.channels_last)
        half = self.precision is not torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            grids = [
                self.network(avg_pool2d(images, 1 << scale))
                for scale in range(self.network.config.scales)
            ]
        with_bank = chance.random() >= WITHOUT_BANK
        losses = []
        maps = [grid.float() for grid in grids]
        for support, query in batch.visits[visit]:
            table = [
                _features(maps, pixels, flips, images.shape[2:], with_bank)
                for pixels in (support, query)
            ]
            logits = self.head(table[0], support.classes, table[1])
            losses.append(balanced_loss(logits, query.classes))
        loss = torch.stack(losses).mean()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        return float(loss.detach())

    def _rate(self) -> float:
        """Share of the peak learning rate: a warm-up, then half a cosine."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(self.step / self.steps, 1))
        warm_up = min(WARM_UP, max(self.steps // 10, 1))
        return min((self.step + 1) / warm_up, 1) * (0.01 + 0.99 * cosine)

    @torch.no_grad()
    def _follow(self) -> None:
        share = 1 / min(self.step, AVERAGE_OVER, max(self.steps // 4, 1))
        pairs = zip(
            self.average.state_dict().values(),
            self.network.state_dict().values(),
            strict=True,
        )
        for mean, now in pairs:
            if mean.is_floating_point():
                mean.lerp_(now, share)

    def _report(self, loss: float) -> None:
        new = not (self.folder / "log.csv").exists()
        with (self.folder / "log.csv").open("a", newline="") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(["step", "seconds", "loss", "penalty", "scale"])
            numbers = self.head.log_penalty.detach(), self.head.log_scale.detach()
            rows.writerow(
                [self.step, f"{self.seconds:.1f}", f"{loss:.4f}"]
                + [f"{math.exp(number):.4f}" for number in numbers]
            )

    def _save(self) -> None:
        state = {
            "step": self.step,
            "drawn": self.drawn,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "head": self.head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(state, self.folder / "state.tmp")
        (self.folder / "state.tmp").replace(self.folder / "state.pt")
        channel_weights = self.head.log_trust.detach().exp()
        save_weights(
            self.average,
            channel_weights / channel_weights.square().mean().sqrt(),
            self.folder / "embedded.safetensors",
            trained=f"training/train.py, step {self.step} of {self.steps}, seed "
            f"{self.seed}, {self.seconds:.0f} s"
            + (f", {self.series:g} of series" if self.series else "")
            + (f", from {load_weights(self.start).hash}" if self.start else ""),
        )

    def _load(self, state: dict[str, object]) -> None:
        for name in ("step", "drawn", "seconds"):
            setattr(self, name, state[name])
        for name in ("network", "average", "head", "optimiser"):
            getattr(self, name).load_state_dict(state[name])


def _features(
    grids: list[Tensor],
    pixels: Pixels,
    flips: list[int],
    shape: torch.Size,
    with_bank: bool,
) -> Tensor:
    """Return the features of pixels of pictures that were flipped, (N, C)."""
    places = pixels.places
    if flips:
        turned = torch.tensor([2 in flips, 3 in flips])
        places = torch.where(turned, torch.tensor(shape) - 1 - places, places)
    features = [
        torch.cat(
            [
                read(grid[number], places[pixels.pictures == number], shape)
                for number in pixels.pictures.unique().tolist()
            ]
        )
        for grid in grids
    ]
    return torch.cat([*features, pixels.bank.float()] if with_bank else features, 1)


if __name__ == "__main__":
    main()
