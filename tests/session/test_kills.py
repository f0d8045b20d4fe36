"""Savers that are killed: nothing is lost, and nothing left is taken for data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_a_few_moments_every_saver_leaves_what_was_saved() -> None:
    pytest.importorskip("zarr")
    command = [sys.executable, SCRIPT, "--kills", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == ["batch", "classifier", "project", "segmentation", "zarr"]
    for kind, result in found.items():
        assert result["losses"] == [], kind
        assert result["strays"] == [], kind
        assert result["kills"] == 3
