"""Training a backbone on in some images, and what its weights are then worth."""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hrdv2.core.checks import filled, grey_if_equal
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session.features import FeatureSource
from napari_hrdv2.session.tasks import TaskContext, TimeLeft

if TYPE_CHECKING:
    from napari_hrdv2.core.adaptation import Adaptation
    from napari_hrdv2.core.adaptation.choice import ScribbleScores


def check_new(out: Path) -> None:
    """Raise ValueError unless it names a weights file that is not there yet."""
    if out.suffix != ".safetensors" or out.exists():
        problem = "is there already" if out.exists() else "is no such name"
        raise ValueError(f"out: {out} {problem}; name a new file ….safetensors")


@dataclass(frozen=True)
class Adapted:
    """What came of it; scores are NaN where there are no scribbles to compare by."""

    best_step: int
    first_loss: float
    best_loss: float
    scores: dict[str, ScribbleScores]  # "before" and "after"
    is_kept: bool


@dataclass(frozen=True, eq=False)
class AdaptRequest:
    """A backbone is to be trained on in (H, W) or (H, W, 3|4) images.

    `labels` has the (H, W) scribbles of each, or None. Partial answers are sentences on
    how it goes. `stop` ends the training, and its best step counts; a run that was
    cancelled has its state beside `out`, and goes on from there.
    """

    images: Sequence[Any]
    labels: Sequence[Any]
    features: FeatureOptions
    out: Path
    steps: int = 100
    seed: int = 0
    only_better: bool = True
    stop: threading.Event = field(default_factory=threading.Event)

    def __call__(self, context: TaskContext) -> Adapted:
        """Train, compare, and write the weights unless they are known to be no better.

        Raises ValueError or MemoryError, in a sentence, before it begins.
        """
        from napari_hrdv2.core.adaptation import Adaptation, AdaptationOptions
        from napari_hrdv2.core.adaptation.choice import score_on_scribbles

        check_new(self.out)
        chosen, say = self.features, context.partial
        state = self.out.with_name(f"{self.out.stem}.state.safetensors")
        images = [grey_if_equal(filled(np.asarray(image))) for image in self.images]
        backbone = chosen.load(context.loading, precision="float32")
        options = AdaptationOptions(steps=self.steps, seed=self.seed)
        training = Adaptation(backbone, images, options, state)
        needed = training.check_memory()
        say(f"images: {len(images)}; steps: {self.steps}; {needed}")
        self._train(training, context)
        best, checks, scores = training.best_step, training.checks, {}
        told = f"step {best} is the best" + ", the weights as they were" * (best == 0)
        say(f"{told}: loss {checks[0]:.3f} became {checks[best]:.3f}")
        painted = [i for i, drawn in enumerate(self.labels) if np.any(drawn)]
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / self.out.name
            training.save(path)
            made = {"before": chosen, "after": replace(chosen, weights=str(path))}
            for when, one in made.items():
                source = FeatureSource.load(one, context)
                features = [source.features(images[i], context) for i in painted]
                drawn = [self.labels[i] for i in painted]
                scores[when] = score_on_scribbles(features, drawn)
                say(f"mean IoU on scribbles, {when}: {scores[when]}")
        before, after = scores.values()
        is_kept = not self.only_better or after.is_better_than(before)
        if math.isnan(before.mean + after.mean):
            say("nothing could be compared: the weights are not shown to be better")
            is_kept = True
        if is_kept:
            training.save(self.out)
            state.unlink(missing_ok=True)
        return Adapted(best, checks[0], checks[best], scores, is_kept)

    def _train(self, training: Adaptation, context: TaskContext) -> None:
        """Train to the end or until it is stopped, and say how it goes."""
        from napari_hrdv2.core.adaptation.training import CHECK_EVERY

        left, start, stage = TimeLeft(), training.step, "Adapting"
        left.text(stage, 0, 1)  # the clock runs from here
        if start:
            context.partial(f"goes on after step {start}")

        def tell(done: int, total: int) -> None:
            context.progress(stage, done, total)
            if done % CHECK_EVERY == 0:
                time = left.text(stage, done - start, total - start)
                loss = np.mean(training.losses[-CHECK_EVERY:])
                context.partial(f"step {done} of {total}, loss {loss:.3f}, {time}")

        try:
            training.run(tell, lambda: self.stop.is_set() or context.should_stop())
        except Cancelled:
            context.stop_if_cancelled()
