"""A backbone learns from images alone, goes on after a kill, and is one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.core.adaptation import Adaptation, AdaptationOptions
from napari_hrdv2.core.adaptation.networks import adaptable
from napari_hrdv2.core.backbones.embedded.network import load_weights
from napari_hrdv2.core.backbones.vit.weights import load_weights as load_vit_weights
from napari_hrdv2.core.errors import Cancelled, WeightsError
from small_networks import VIT, load_small


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sort 16 similarities of 16 places, which takes no time."""
    monkeypatch.setattr("napari_hrdv2.core.adaptation.views.POINTS", 4)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.REFERENCES", 16)
    monkeypatch.setattr("napari_hrdv2.core.adaptation.training.CHECKED_PAIRS", 4)


def texture(seed: int = 0, shape: tuple[int, ...] = (96, 112)) -> np.ndarray:
    """Two phases, one of them finely striped, with noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    phase = np.hypot(rows - 40, columns - 50) < 30
    grey = 90 + 50 * phase + 40 * ((rows // 3) % 2) * phase
    return np.clip(grey + rng.normal(0, 12, shape), 0, 255).astype(np.uint8)


def small(steps: int = 3, *, checkpoint: Path | None = None, **options) -> Adaptation:
    options = AdaptationOptions(steps=steps, pairs=2, **options)
    return Adaptation(load_small("vit"), [texture()], options, checkpoint)


def embedded(steps: int = 2, **options) -> Adaptation:
    backbone = load_backbone("embedded", device="cpu", precision="float32")
    options = AdaptationOptions(steps=steps, pairs=1, **options)
    return Adaptation(backbone, [texture()], options)


@pytest.mark.slow
def test_the_excess_loss_of_a_random_vit_halves_in_fifty_steps() -> None:
    training = small(50, rate=1e-3)
    training.run()
    assert len(training.losses) == 50
    assert training.checks[50] < training.checks[0] / 2
    before = load_small("vit").model.state_dict()
    after = training.best.state_dict()
    assert not torch.equal(before["norm.weight"], after["norm.weight"])
    assert torch.equal(before["pos_embed"], after["pos_embed"])


def test_a_rate_that_ruins_the_network_is_told() -> None:
    training = embedded(4, rate=1e6)
    with pytest.raises(ValueError, match="rate: 1e.06 ruined the network by step"):
        training.run()
    assert np.isfinite(training.losses).all()


@pytest.mark.slow
def test_embedded_learns_from_images_alone(tmp_path: Path) -> None:
    training = embedded(12, rate=4e-4)
    training.run()
    assert min(training.checks.values()) < training.checks[0]
    training.save(tmp_path / "mine.safetensors")
    new, old = load_weights(tmp_path / "mine.safetensors"), load_weights()
    assert new.hash != old.hash
    torch.testing.assert_close(new.channel_weights, old.channel_weights)
    image = np.random.default_rng(0).random((40, 50))
    backbone = load_backbone("embedded", tmp_path / "mine.safetensors", "cpu")
    made, before = (
        compute_features(image, each).materialize()
        for each in (backbone, load_backbone("embedded", device="cpu"))
    )
    learned = backbone.network.config.channels
    assert not np.allclose(made[..., :learned], before[..., :learned], atol=1e-2)


def test_the_file_of_a_vit_is_opened_under_the_same_name(tmp_path: Path) -> None:
    training = small()
    training.run()
    training.save(tmp_path / "mine.safetensors")
    loaded = load_vit_weights(tmp_path / "mine.safetensors", VIT)
    assert loaded.state.keys() == training.best.state_dict().keys()
    assert torch.equal(loaded.state["cls_token"], training.best.cls_token)


@pytest.mark.parametrize("name", ["embedded", "vit"])
def test_what_is_trained_gives_what_the_backbone_gives(name: str) -> None:
    backbone = load_small(name)
    if name == "embedded":
        backbone = load_backbone(name, device="cpu", precision="float32")
    kind = adaptable(backbone)
    pixels = torch.rand(1, 96, 112, generator=torch.Generator().manual_seed(0))
    views = kind.prepared(pixels).expand(1, 3, -1, -1)
    found = kind.tokens(kind.network, views)
    assert found.requires_grad
    wanted = backbone.tokens(pixels[None], stride=backbone.patch_size)
    wanted = wanted[..., : found.shape[-1]].float()  # the filter bank comes after
    torch.testing.assert_close(found.detach(), wanted, atol=5e-3, rtol=1e-3)


def test_the_backbone_that_was_given_is_left_as_it_is() -> None:
    backbone = load_small("vit")
    before = {name: x.clone() for name, x in backbone.model.state_dict().items()}
    Adaptation(backbone, [texture()], AdaptationOptions(steps=2, pairs=1)).run()
    for name, x in backbone.model.state_dict().items():
        assert torch.equal(x, before[name])
        assert not x.requires_grad


@pytest.mark.slow
def test_a_run_that_is_cancelled_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = small(14, checkpoint=tmp_path / "whole.safetensors")
    whole.run()
    whole.save(tmp_path / "a.safetensors")
    state = tmp_path / "state.safetensors"
    for stop in (4, 11):
        training = small(14, checkpoint=state)
        with pytest.raises(Cancelled):
            training.run(should_stop=lambda t=training, s=stop: t.step == s)
        assert training.step == stop
        training.save(tmp_path / "so_far.safetensors")  # the best so far
    last = small(14, checkpoint=state)
    assert last.step == 11
    last.run()
    last.save(tmp_path / "b.safetensors")
    for one, other in (("a", "b"), ("whole", "state")):
        pair = [(tmp_path / f"{n}.safetensors").read_bytes() for n in (one, other)]
        assert pair[0] == pair[1]


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from napari_hrdv2.core.adaptation import training, views
from test_training import small
training.SAVE_EVERY, training.REFERENCES, training.CHECKED_PAIRS = 0, 16, 4
views.POINTS = 4
run = small(6, checkpoint=Path(sys.argv[3]))
run.run(lambda done, total: done == 4 and os._exit(9))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    here, state = Path(__file__).parent, tmp_path / "state.safetensors"
    command = [sys.executable, "-c", KILLED, str(here), str(here.parents[1])]
    assert subprocess.run([*command, str(state)], check=False).returncode == 9
    rest = small(6, checkpoint=state)
    assert 3 <= rest.step < 6
    rest.run()
    rest.save(tmp_path / "a.safetensors")
    whole = small(6)
    whole.run()
    whole.save(tmp_path / "b.safetensors")
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_other_seeds_give_other_weights() -> None:
    runs = [small(2, seed=seed) for seed in (0, 0, 1)]
    for run in runs:
        run.run()
    first, again, other = (run.losses for run in runs)
    assert first == again
    assert first != other


@pytest.mark.slow
def test_what_is_kept_is_the_best_check() -> None:
    training = small(20, rate=10.0)  # which ruins the network
    training.run()
    assert training.checks[training.best_step] == min(training.checks.values())
    views = training.best.state_dict()
    assert all(torch.isfinite(x).all() for x in views.values())


def test_memory_is_said_and_grows_with_the_pairs() -> None:
    training = small()
    more = Adaptation(load_small("vit"), [texture()], AdaptationOptions(pairs=4))
    assert 1e5 < training.memory() < more.memory() < 1e9
    assert "of memory needed" in training.check_memory()


@pytest.mark.parametrize(
    ("free", "remedy"),
    [(1000, "1 kB free; give fewer or smaller"), (90_000, "90 kB free; choose a sm")],
)
def test_without_memory_it_does_not_begin(monkeypatch, free, remedy) -> None:
    monkeypatch.setattr(
        "napari_hrdv2.core.devices.available_memory", lambda device: free
    )
    with pytest.raises(MemoryError, match=remedy):
        small().check_memory()


def test_flat_parts_and_colours_give_finite_weights() -> None:
    flat = np.zeros((70, 91), np.uint8)
    flat[69, 90] = 255
    coloured = np.random.default_rng(0).random((70, 91, 3))
    backbone = load_backbone("embedded", device="cpu", precision="float32")
    options = AdaptationOptions(steps=2, pairs=2)
    training = Adaptation(backbone, [flat, coloured], options)
    training.run()
    assert np.isfinite(training.losses).all()
    assert all(torch.isfinite(p).all() for p in training.student.parameters())


def test_bad_input_is_told_in_a_sentence(tmp_path: Path) -> None:
    vit = load_small("vit")
    with pytest.raises(ValueError, match="images: there is none"):
        Adaptation(vit, [])
    with pytest.raises(ValueError, match=r"shortest side is 40 pixels; 64 are needed"):
        Adaptation(vit, [texture(), texture(shape=(96, 40))])
    with pytest.raises(ValueError, match="every pixel has the value 0"):
        Adaptation(vit, [np.zeros((96, 96), np.uint8)])
    with pytest.raises(ValueError, match="values are NaN or infinite; replace"):
        Adaptation(vit, [np.full((96, 96), np.nan)])
    with pytest.raises(ValueError, match="steps"):
        Adaptation(vit, [texture()], AdaptationOptions(steps=0))
    for name in ("filters", "spit-small", "embedded+filters"):
        backbone = load_small(name) if "spit" in name else load_backbone(name)
        with pytest.raises(ValueError, match=r"cannot be adapted; choose embedded or"):
            Adaptation(backbone, [texture()])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    small(2, checkpoint=state).run()
    before = state.read_bytes()
    with pytest.raises(WeightsError, match=r"of a run with other steps \(2, not 3\)"):
        small(3, checkpoint=state)
    with pytest.raises(WeightsError, match="of a run with other images; remove it"):
        options = AdaptationOptions(steps=2, pairs=2)
        Adaptation(load_small("vit"), [texture(1)], options, state)
    assert state.read_bytes() == before
    save_file(load_file(state), state)  # without its metadata
    with pytest.raises(WeightsError, match="is not that of an adaptation"):
        small(2, checkpoint=state)
    state.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is not a checkpoint"):
        small(2, checkpoint=state)
