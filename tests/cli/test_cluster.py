"""A cluster of which workers or scheduler are gone: a sentence, and what was done."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from napari_hrdv2.cli import cluster as module

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


@pytest.fixture
def classifier(command, image: Path, labels: Path) -> Path:
    path = image.with_name("alloy.safetensors")
    options = ["-b", "filters", "--save-classifier", path]
    assert command("segment", image, "-l", labels, *options).code == 0
    return path


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """A scheduler and a worker, to be killed, and the scheduler's address."""
    monkeypatch.setattr(module, "WORKER_WAIT", 2.0)
    monkeypatch.setattr(module, "SCHEDULER_WAIT", 1.0)
    monkeypatch.setattr(module, "_POLL", 0.2)
    file, started = tmp_path / "scheduler.json", {}
    about = ["--scheduler-file", str(file), "--no-dashboard"]
    commands = {
        "scheduler": ["scheduler", "--port", "0"],
        "worker": ["worker", "--no-nanny", "--nthreads", "1"],
    }
    for name, options in commands.items():
        started[name] = subprocess.Popen(
            [sys.executable, "-m", "dask", *options, *about],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    for _ in range(600):
        if file.exists() and file.read_text().endswith("}"):
            break
        threading.Event().wait(0.1)
    address = json.loads(file.read_text())["address"]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
    yield started, address
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("lost", ["worker", "scheduler"])
def test_what_was_done_is_kept_when_the_cluster_is_gone(
    command, classifier, another_image, tmp_path, processes, lost
) -> None:
    started, address = processes
    files = [another_image(tmp_path / f"{number}.tif") for number in range(200)]
    out, ended = tmp_path / "out", threading.Event()

    def kill_after_some() -> None:
        while len(list(out.glob("*.png"))) < 5 and not ended.wait(0.02):
            pass
        started[lost].kill()

    killer = threading.Thread(target=kill_after_some)
    killer.start()
    try:
        outcome = command(
            "apply", classifier, *files, "--scheduler", address, "-o", out
        )
    finally:
        ended.set()
        killer.join()
    assert outcome.code == 1
    last = outcome.err.splitlines()[-1]
    assert last.startswith("napari-hrdv2: --scheduler: ")
    told = "has had no worker for 2 s" if lost == "worker" else "was lost"
    assert told in last
    assert "Traceback" not in outcome.err
    done = int(last.split("; ")[1].split(" of 200 ")[0])
    assert 1 <= done < 200
    table = (out / "phase_fractions.csv").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 1 + done
