"""Channels taken together by ``segment``, and by ``apply`` as it was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files import read_labels, read_ome_zarr

pytestmark = pytest.mark.filterwarnings("ignore:uint16 grey levels")
SIDE = 144


def phases(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps of which each shows two of three phases alike, (3, H, W), and their ids."""
    rng = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), SIDE)
    truth = 1 + (rows // 18 + columns // 18) % 3
    grey, iron = np.array([[0, 90, 90, 160], [0, 600, 1300, 600]])[:, truth]
    nothing = np.full(truth.shape, 50)
    noise = rng.normal(0, 1, (3, SIDE, SIDE)) * np.array([12, 120, 10])[:, None, None]
    maps = np.stack([grey, iron, nothing]) + noise
    return maps.clip(0, 65535).astype(np.uint16), truth


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """Two files, their channels in another order, and the truth of the second."""
    paths = tmp_path / "one.ome.tif", tmp_path / "two.tif"
    image, truth = phases(1)
    about = {"axes": "CYX", "Channel": {"Name": ["BSE", "Fe", "Si"]}}
    tifffile.imwrite(paths[0], image, metadata=about)
    labels = np.where(np.arange(SIDE)[:, None] % 36 < 3, truth, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    other, truth = phases(2)
    about = {"axes": "CYX", "Labels": ["Si", "Fe", "BSE"]}
    tifffile.imwrite(paths[1], other[::-1].copy(), imagej=True, metadata=about)
    return (*paths, truth)


@pytest.mark.parametrize("blocks", [False, True])
def test_channels_are_segmented_together_and_applied_by_name(
    command, maps, tmp_path: Path, blocks: bool
) -> None:
    one, two, truth = maps
    model, out = tmp_path / "two.safetensors", tmp_path / "out"
    more = ["--blocks"] * blocks
    trained = command(
        *("segment", one, "-l", tmp_path / "labels.tif", "-b", "filters"),
        *("--channels", "BSE,Fe", "--save-classifier", model, *more),
    )
    assert trained.code == 0, trained.err
    applied = command("apply", model, two, "-o", out, *more)
    assert applied.code == 0, applied.err
    if blocks:
        found = read_ome_zarr(out / "two_segmentation.zarr").labels
    else:
        found = read_labels(out / "two_segmentation.tif")
    assert mean_iou(truth, found, [1, 2, 3]) > 0.9


@pytest.mark.parametrize("channels", ["BSE,Fe", "Fe,BSE,Si"])
def test_smoothing_by_blocks_is_guided_by_the_first_channel(
    command, maps, tmp_path: Path, channels: str
) -> None:
    given = "segment", maps[0], "-l", tmp_path / "labels.tif", "-b", "filters"
    given = *given, "--channels", channels, "--smoothing", "crf"
    wanted, found = tmp_path / "a.tif", tmp_path / "b.zarr"
    assert command(*given, "-o", wanted).code == 0
    outcome = command(*given, "--blocks", "-o", found)
    assert outcome.code == 0, outcome.err
    same = read_labels(wanted) == read_ome_zarr(found).labels
    assert same.mean() > 0.9999


def test_an_image_without_a_channel_is_refused_in_a_sentence(
    command, maps, tmp_path: Path
) -> None:
    (one, _, _), two = maps, tmp_path / "another.ome.tif"
    model = tmp_path / "two.safetensors"
    given = "segment", one, "-l", tmp_path / "labels.tif", "-b", "filters"
    missing = command(*given, "--channels", "BSE,Al")
    assert missing.code == 1
    assert "no channel 'Al'; it has BSE, Fe, Si" in missing.err
    assert command(*given, "--channels", "BSE,Si", "--save-classifier", model).code == 0
    image, _ = phases(3)
    about = {"axes": "CYX", "Channel": {"Name": ["BSE", "Fe"]}}
    tifffile.imwrite(two, image[:2], metadata=about)
    refused = command("apply", model, two, "-o", tmp_path / "out")
    assert refused.code == 1
    assert "no channel 'Si'; it has BSE, Fe" in refused.err
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, image[0])
    refused = command("apply", model, plain, "-o", tmp_path / "out")
    assert "has no axis of channels alone" in refused.err


def test_smoothing_follows_the_first_channel(command, maps, tmp_path: Path) -> None:
    one, _, _ = maps
    done = command(
        *("segment", one, "-l", tmp_path / "labels.tif", "-b", "filters"),
        *("--channels", "BSE,Fe", "--smoothing", "guided"),
    )
    assert done.code == 0, done.err
