"""Training a backbone on: student, teacher, and a checkpoint to go on from.

Every step is known from the seed and its number alone, so that a run that was broken
off goes on as if it had not been: on one CPU, with as many threads, to the same bytes.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from napari_hrdv2.core.backbones.checkpoint import read_checkpoint, write_tensors
from napari_hrdv2.core.checks import check_whole, prepare_image
from napari_hrdv2.core.devices import checked_memory
from napari_hrdv2.core.errors import Cancelled, Stop, WeightsError
from napari_hrdv2.core.fingerprints import image_fingerprint

from .loss import neighbour_loss
from .networks import Adaptable, adaptable
from .views import ViewPairs, tokens_at

WEIGHT_DECAY, WARM_UP = 1e-4, 10  # steps
MEMORY_OF_TEACHER = 0.1  # of a run: how far back its mean of the student reaches
LEAST_PATCHES = 4  # along the side of a view
CHECK_EVERY, CHECKED_PAIRS = 10, 8  # steps; always the same views
REFERENCES = 49  # vectors that places are compared with
SAVE_EVERY = 60  # seconds
_VIEWS, _CHECK, _STATISTICS, _REFERENCE = range(4)  # what random numbers are for


@dataclass(frozen=True, kw_only=True)
class AdaptationOptions:
    """How a backbone is trained on."""

    steps: int = 100
    seed: int = 0
    rate: float | None = None  # of learning, at its peak; None: the backbone's own
    pairs: int = 4  # of views, a step


class Adaptation:
    """A backbone that is being trained on in some images, without labels.

    Parameters
    ----------
    backbone : EmbeddedBackbone or ViTBackbone
        Loaded in float32. It is left as it is.
    images : sequence of (H, W) or (H, W, 3|4) arrays
    options : AdaptationOptions
    checkpoint : path-like, optional
        Where the state of the run is kept. A run whose file is there goes on.

    Raises
    ------
    ValueError
        If the backbone cannot be trained on, an image is too small, or the checkpoint
        is of another run; MemoryError if the images do not fit.
    """

    def __init__(
        self,
        backbone: Any,
        images: Sequence[ArrayLike],
        options: AdaptationOptions | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.options = options = options or AdaptationOptions()
        check_whole("steps", options.steps)
        check_whole("pairs", options.pairs)
        self.kind = adaptable(backbone)
        held = 4 * sum(np.asarray(image).size for image in images)
        checked_memory(held, "give fewer or smaller images")
        self.device: torch.device = backbone.device
        self.images, self.side = _prepared(images, self.kind)
        self.rate = self.kind.rate if options.rate is None else options.rate
        self._checkpoint = checkpoint
        self._run = asdict(options) | {
            "backbone": f"{backbone.name} {backbone.weights_hash}",
            "images": [image_fingerprint(image) for image in images],
        }
        self.step, self.losses = 0, list[float]()  # less the least that they could be
        # The same by step, of the teacher on views that are always the same. That of
        # the lowest is the result, so that a run may end at any time.
        self.checks: dict[int, float] = {}
        self.student = self.kind.network.to(self.device)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.best = copy.deepcopy(self.teacher)
        self._optimiser = torch.optim.AdamW(
            self.student.parameters(), self.rate, weight_decay=WEIGHT_DECAY
        )
        self._centre, self._scale = self._statistics()
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)

    @property
    def best_step(self) -> int:
        """The step that the result is of."""
        return min(self.checks, key=self.checks.__getitem__, default=0)

    def memory(self) -> int:
        """Return the bytes that training takes, measured on one pair of views."""
        seen: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            if not (x.is_leaf and x.requires_grad):
                seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            held.append(x)  # else another takes its place
            return x

        held: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            views, rng = self._drawn(1, _VIEWS, 0), self._rng(_REFERENCE, 0)
            self._loss(views, rng, self.student)
        parameters = sum(4 * p.numel() for p in self.student.parameters())
        # Student, teacher and best, a gradient and AdamW's two means of it. What a
        # gradient needs is needed once more on the way back.
        return 6 * parameters + 2 * self.options.pairs * sum(seen.values())

    def check_memory(self) -> str:
        """Return in words what is needed beside the images, or raise MemoryError."""
        remedy = "choose a smaller backbone or fewer pairs"
        return checked_memory(self.memory(), remedy, self.device)

    def run(
        self,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Stop = None,
    ) -> None:
        """Train to the last step; `Cancelled` keeps what is best so far."""
        steps, saved = self.options.steps, time.monotonic()
        if not self.checks:
            self._check()
        while self.step < steps:
            if should_stop is not None and should_stop():
                self._save()  # not in the middle of a step
                raise Cancelled("adapting the backbone was cancelled")
            self._learn()
            if self.step % CHECK_EVERY == 0 or self.step == steps:
                self._check()
            if progress is not None:
                progress(self.step, steps)
            if time.monotonic() - saved >= SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self._save()

    def save(self, path: Path) -> None:
        """Write the weights of the best step, as the backbone's ``weights`` opens."""
        about = self._run | {"images": len(self.images), "best step": self.best_step}
        self.kind.save(self.best, path, f"adapted: {json.dumps(about)}")

    # --- Steps ------------------------------------------------------------------------
    def _rng(self, purpose: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self.options.seed, purpose, step])

    def _drawn(self, pairs: int, purpose: int, step: int) -> ViewPairs:
        rng = self._rng(purpose, step)
        drawn = ViewPairs.draw(self.images, self.side, pairs, rng)
        return ViewPairs(*(x.to(self.device) for x in drawn))

    @torch.no_grad()
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and scale of tokens at first: cosines are of what is left."""
        views = self._drawn(CHECKED_PAIRS, _STATISTICS, 0)
        tokens = self.kind.tokens(self.teacher, views.images[0]).flatten(0, -2)
        deviation, mean = torch.std_mean(tokens, dim=0)
        weights = self.kind.channel_weights.to(self.device)
        return mean, weights / deviation.clamp_min(1e-6)

    def _vectors(self, network: nn.Module, views: ViewPairs, which: int) -> Tensor:
        tokens = self.kind.tokens(network, views.images[which])
        found = tokens_at(tokens, views.points[which], self.kind.patch_size)
        return (found - self._centre) * self._scale  # (B, n, C)

    def _loss(
        self, views: ViewPairs, rng: np.random.Generator, student: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, each view being the teacher's in turn, and the least."""
        losses = []
        for which in (0, 1):
            with torch.no_grad():
                teacher = self._vectors(self.teacher, views, which)
            seen = self._vectors(student, views, 1 - which)
            losses.append(self._compared(seen, teacher, rng))
        loss, least = zip(*losses, strict=True)
        return torch.stack(loss).mean(), torch.stack(least).mean()

    def _compared(
        self, student: Tensor, teacher: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        pool = teacher.flatten(0, 1)
        chosen = torch.from_numpy(rng.permutation(len(pool))[:REFERENCES])
        return neighbour_loss(student, teacher, pool[chosen.to(pool.device)])

    def _learn(self) -> None:
        """Take one step."""
        warm = min((self.step + 1) / WARM_UP, 1)
        cosine = 0.5 + 0.5 * math.cos(math.pi * self.step / self.options.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate * warm * cosine
        views = self._drawn(self.options.pairs, _VIEWS, self.step)
        rng = self._rng(_REFERENCE, self.step)
        loss, least = self._loss(views, rng, self.student)
        above = float((loss - least).detach())
        if not math.isfinite(above):
            raise ValueError(
                f"rate: {self.rate:g} ruined the network by step {self.step}; choose a "
                "smaller one"
            )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self._optimiser.step()
        self.losses.append(above)
        self.step += 1
        share = 1 / max(MEMORY_OF_TEACHER * self.options.steps, 1)
        with torch.no_grad():
            parameters = self.teacher.parameters(), self.student.parameters()
            for mean, now in zip(*parameters, strict=True):
                mean.lerp_(now, share)

    @torch.no_grad()
    def _check(self) -> None:
        """Score the teacher, and keep it if it is the best."""
        views = self._drawn(CHECKED_PAIRS, _CHECK, 0)
        loss, least = self._loss(views, self._rng(_CHECK, 1), self.teacher)
        self.checks[self.step] = float(loss - least)
        if self.best_step == self.step:
            self.best.load_state_dict(self.teacher.state_dict())

    # --- The checkpoint ---------------------------------------------------------------
    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what a checkpoint holds, by name; what is loaded goes into it."""
        for network in ("student", "teacher", "best"):
            for name, x in getattr(self, network).named_parameters():
                yield f"{network}.{name}", x.data
        for name, parameter in self.student.named_parameters():
            for key, x in self._optimiser.state.get(parameter, {}).items():
                yield f"optimiser.{key}.{name}", x

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        state = {"step": self.step, "losses": self.losses, "checks": self.checks}
        text = {"run": json.dumps(self._run), "state": json.dumps(state)}
        write_tensors(self._checkpoint, dict(self._tensors()), text)

    def _load(self, path: Path) -> None:
        from safetensors import safe_open

        tensors = read_checkpoint(path)
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        run, problem = json.loads(about.get("run", "{}")), ""
        other = [key for key, value in self._run.items() if run.get(key) != value]
        if not run:
            problem = "not that of an adaptation"
        elif other == ["images"]:
            problem = "of a run with other images"
        elif other:
            values = f"{run.get(other[0])}, not {self._run[other[0]]}"
            problem = f"of a run with other {other[0]} ({values})"
        if problem:
            raise WeightsError(
                f"checkpoint: {path} is {problem}; remove it, or name another file"
            )
        for name, x in tensors.items():
            if name.startswith("optimiser."):
                _, key, of = name.split(".", 2)
                device = "cpu" if key == "step" else self.device
                parameter = self.student.get_parameter(of)
                self._optimiser.state[parameter][key] = x.to(device)
        for name, x in self._tensors():
            x.copy_(tensors[name])
        state = json.loads(about["state"])
        self.step, self.losses = state["step"], state["losses"]
        self.checks = {int(step): x for step, x in state["checks"].items()}


def _prepared(images: Sequence[ArrayLike], kind: Adaptable) -> tuple[list[Tensor], int]:
    """Return images as the network takes them, and the side of a view of them."""
    if not images:
        raise ValueError("images: there is none; one at least is needed")
    prepared = [
        kind.prepared(torch.from_numpy(prepare_image(image, warn=False).pixels))
        for image in images
    ]
    shortest = min(min(image.shape[1:]) for image in prepared)
    least = max(LEAST_PATCHES * kind.patch_size, kind.multiple)
    if shortest < least:
        raise ValueError(
            f"images: the shortest side is {shortest} pixels; {least} are needed, "
            f"{LEAST_PATCHES} patches and more"
        )
    side = min(kind.side, shortest)
    return prepared, side // kind.multiple * kind.multiple
