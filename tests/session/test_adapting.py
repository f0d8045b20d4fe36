"""A backbone is trained on in the images of a session, and kept if it is better."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from napari_hrdv2 import load_backbone
from napari_hrdv2.core.backbones.registry import SPECS
from napari_hrdv2.core.backbones.vit.specs import ViTSpec
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session import compute
from napari_hrdv2.session.batch.adapting import AdaptRequest
from small_networks import VIT

BETTER = "napari_hrdv2.core.adaptation.choice.ScribbleScores.is_better_than"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in the registry, and few similarities to sort."""
    monkeypatch.setitem(SPECS, "tiny", ViTSpec(name="tiny", config=VIT))
    monkeypatch.setattr("napari_hrdv2.core.adaptation.views.POINTS", 4)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.REFERENCES", 16)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.CHECKED_PAIRS", 2)


def request(
    out: Path, steps: int = 12, *, painted: bool = True, **about
) -> AdaptRequest:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 12, (70, 90)).clip(0, 255).astype(np.uint8)
    image[:, 45:] += 80
    drawn = np.zeros(image.shape, np.uint8)
    for row in (5, 40):
        drawn[row : row + 3, 4:30], drawn[row : row + 3, 60:85] = 1, 2
    chosen = FeatureOptions("tiny", transforms="identity", weights="random")
    return AdaptRequest(
        [image, image[:, ::-1]],
        [drawn if painted else None, None],
        chosen,
        out,
        steps,
        **about,
    )


def test_memory_comes_first_then_loss_and_time_then_scores(tmp_path) -> None:
    told: list[str] = []
    asked = request(tmp_path / "mine.safetensors", 20, only_better=False)
    adapted = compute(asked, partial=told.append)
    assert "images: 2; steps: 20; " in told[0]
    assert "of memory needed" in told[0]
    assert told[1].startswith("step 10 of 20, loss ")
    assert re.search(r", about \d+ s left$", told[1])  # not since the machine started
    assert [text.split(":")[0] for text in told[-2:]] == [
        "mean IoU on scribbles, before",
        "mean IoU on scribbles, after",
    ]
    assert adapted.scores["before"].own > 0.4
    assert adapted.best_loss <= adapted.first_loss
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    load_backbone("tiny", asked.out)


def test_what_is_no_better_is_written_only_when_asked_for(
    tmp_path, monkeypatch
) -> None:
    out = tmp_path / "mine.safetensors"
    monkeypatch.setattr(BETTER, lambda self, other: False)
    assert not compute(request(out)).is_kept
    assert not out.exists()
    told: list[str] = []
    assert compute(request(out, only_better=False), partial=told.append).is_kept
    assert "goes on after step 12" in told  # so nothing is trained again
    assert out.exists()
    with pytest.raises(ValueError, match="mine.safetensors is there already"):
        compute(request(out))


def test_without_scribbles_nothing_is_shown_to_be_better(tmp_path) -> None:
    told: list[str] = []
    asked = request(tmp_path / "mine.safetensors", 2, painted=False)
    adapted = compute(asked, partial=told.append)
    assert adapted.is_kept
    assert np.isnan(adapted.scores["after"].mean)
    assert "not shown to be better" in told[-1]


def test_a_run_that_is_stopped_keeps_its_best_step(tmp_path) -> None:
    asked = request(tmp_path / "mine.safetensors", 1000, only_better=False)
    told: list[str] = []

    def stop(text: str) -> None:
        told.append(text)
        if text.startswith("step 20 of 1000"):
            asked.stop.set()

    adapted = compute(asked, partial=stop)
    assert adapted.best_step in (0, 10, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    assert not any(text.startswith("step 30") for text in told)


def test_a_run_that_is_given_up_goes_on_to_the_same_bytes(tmp_path) -> None:
    whole, parts = (tmp_path / f"{name}.safetensors" for name in ("whole", "parts"))
    compute(request(whole, only_better=False))
    seen: list[int] = []
    with pytest.raises(Cancelled):
        compute(
            request(parts, only_better=False),
            progress=lambda stage, done, total: seen.append(done),
            should_stop=lambda: bool(seen) and seen[-1] == 7,
        )
    assert not parts.exists()
    told: list[str] = []
    compute(request(parts, only_better=False), partial=told.append)
    assert "goes on after step 7" in told
    assert parts.read_bytes() == whole.read_bytes()
