from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_hrdv2.cli import main
from napari_hrdv2.files import write_labels

TRUTH = np.ones((40, 50), np.uint8)
TRUTH[:, 22:] = 3
TRUTH[26:, :12] = 3


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``napari-hrdv2`` with these arguments."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Outcome(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def truth() -> np.ndarray:
    """Class 1 on the left, class 3 on the right."""
    return TRUTH


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A noisy two-phase micrograph with a pixel size."""
    return write_image(tmp_path / "alloy.tif")


def write_image(path: Path, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).normal(0, 8, TRUTH.shape)
    grey = np.clip(60 + 50 * TRUTH + noise, 0, 255).astype(np.uint8)
    tifffile.imwrite(
        path, grey, imagej=True, resolution=(4.0, 4.0), metadata={"unit": "um"}
    )
    return path


@pytest.fixture
def another_image() -> Callable[..., Path]:
    """Write a micrograph like `image` under another name."""
    return write_image


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Some pixels of each phase, with names."""
    # Scattered dots: on so small an image scribbles would say little of large scales.
    dotted = np.random.default_rng(1).random(TRUTH.shape) < 0.15
    scribbles = np.where(dotted, TRUTH, 0)
    path = tmp_path / "scribbles.tif"
    write_labels(path, scribbles, class_names={1: "dark", 3: "light"})
    return path


@pytest.fixture
def classifier(command: Command, image: Path, labels: Path) -> Path:
    """Return the file of a classifier of `filters`."""
    path = image.with_name("alloy.safetensors")
    options = ["-b", "filters", "--save-classifier", path]
    assert command("segment", image, "-l", labels, *options).code == 0
    return path
