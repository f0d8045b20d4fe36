"""A cluster of which workers or scheduler are gone: a sentence, and what was done."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_hrdv2.cli import cluster as module
from napari_hrdv2.core.backbones import load_backbone
from napari_hrdv2.core.features.blocks import block_features
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.files import label_store, open_image
from napari_hrdv2.session.batch import Job, Run

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """A scheduler and a worker, to be killed, and the scheduler's address."""
    monkeypatch.setattr(module, "WORKER_WAIT", 2.0)
    monkeypatch.setattr(module, "SCHEDULER_WAIT", 6.0)
    monkeypatch.setattr(module, "_POLL", 0.2)
    file, started = tmp_path / "scheduler.json", {}
    about = ["--scheduler-file", str(file), "--no-dashboard"]
    worker = ["worker", "--no-nanny", "--nthreads", "1", "--resources", "memory=3e9"]
    commands = {
        "scheduler": ["scheduler", "--port", "0"],
        "worker": worker,
        "second": worker,
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
        client.wait_for_workers(2, timeout=60)
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
        if lost == "worker":
            started["second"].kill()

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


def test_features_of_volumes_are_refused_for_an_image_as_on_one_machine(
    classifier, image, tmp_path
) -> None:
    job, options = Job(image, tmp_path / "x.tif"), FeatureOptions("filters")
    given = str(classifier), classifier.stat().st_mtime_ns
    assert isinstance(
        module._on_worker(job, *given, options, Run(blocks=True)), module._Opened
    )
    across = replace(options, planes="xyz")
    refused = module._on_worker(job, *given, across, Run(blocks=True))
    assert "'xyz' is for volumes, and" in refused.error


@pytest.fixture
def long_image(another_image, tmp_path) -> Path:
    """A micrograph of five blocks, one below the other."""
    tile = tifffile.imread(another_image(tmp_path / "tile.tif"))
    image = np.tile(tile, (208, 2))[:8300, :93]
    image = image + np.random.default_rng(4).integers(0, 9, image.shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "long.tif", image, tile=(256, 64), compression="zlib")
    return tmp_path / "long.tif"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def done_blocks(out: Path) -> int:
    file = out / "long_segmentation.zarr.unfinished" / "done.txt"
    return len(file.read_text().split("\n")) - 1 if file.exists() else 0


def when_some_are_done(out: Path, act) -> threading.Thread:
    """Act, in a thread, once two blocks are done."""

    def wait() -> None:
        for _ in range(6000):
            if done_blocks(out) >= 2:
                act()
                return
            threading.Event().wait(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "how", [("--pixel-size", "0.35 um"), ("--smoothing", "guided")]
)
def test_blocks_on_workers_are_those_of_one_machine_though_a_worker_dies(
    command, classifier, long_image, tmp_path, processes, how
) -> None:
    started, address = processes
    given = "apply", classifier, long_image, "--blocks", *how, "-o"
    assert command(*given, tmp_path / "here").code == 0
    out = tmp_path / "there"
    killer = when_some_are_done(out, started["worker"].kill)
    outcome = command(*given, out, "--scheduler", address)
    killer.join()
    assert outcome.code == 0, outcome.err
    assert started["worker"].wait(60) != 0
    name = "long_segmentation.zarr"
    wanted, found = content(tmp_path / "here" / name), content(out / name)
    assert len(wanted) > 5
    assert found == wanted
    tables = [
        (tmp_path / one / "phase_fractions.csv").read_text()
        for one in ("here", "there")
    ]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("lost", ["client", "worker", "scheduler"])
def test_blocks_that_are_done_are_gone_on_with(
    command, classifier, long_image, tmp_path, processes, lost
) -> None:
    started, address = processes
    out, given = tmp_path / "out", ["apply", classifier, long_image, "--blocks", "-o"]
    if lost == "client":
        arguments = map(str, [*given, out, "--scheduler", address])
        client = subprocess.Popen(
            [sys.executable, "-m", "napari_hrdv2", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        when_some_are_done(out, client.kill).join()
        client.wait()
    else:
        gone = [started[lost]] + [started["second"]] * (lost == "worker")
        killer = when_some_are_done(out, lambda: [one.kill() for one in gone])
        outcome = command(*given, out, "--scheduler", address)
        killer.join()
        assert outcome.code == 1
        last = outcome.err.splitlines()[-1]
        told = "has had no worker for 2 s" if lost == "worker" else "was lost"
        assert told in last
        assert "keeps the blocks that are done" in outcome.err
        assert "Traceback" not in outcome.err
    kept = done_blocks(out)
    assert 2 <= kept < 5
    again = ["--scheduler", address] * (lost == "client")
    outcome = command(*given, out, *again)
    assert outcome.code == 0, outcome.err
    assert " of 5 blocks were done by an earlier run" in outcome.err
    assert command(*given, tmp_path / "here").code == 0
    name = "long_segmentation.zarr"
    assert content(out / name) == content(tmp_path / "here" / name)
    assert not (out / f"{name}.unfinished").exists()


def test_features_of_blocks_are_made_again_in_another_process(long_image) -> None:
    image, backbone = open_image(long_image).data, load_backbone("filters")
    features = block_features(image, backbone, block=1024)
    copied = pickle.loads(pickle.dumps(features))
    again = copied.again(image, backbone)
    assert (copied.shape, copied.block) == (features.shape, features.block)
    assert copied.part_options == features.part_options
    at = np.arange(5, 8300, 411), np.arange(5, 8300, 411) % 93
    np.testing.assert_array_equal(again.sample(*at), features.sample(*at))


def test_a_block_of_another_run_is_not_written(tmp_path) -> None:
    target, window = tmp_path / "x.zarr", (slice(0, 9), slice(0, 8))
    store = label_store.LabelStore(target, (9, 8), 3, "one", block=16)
    labels = np.ones((9, 8), np.uint8)
    before = store.place, window, labels
    store.note(window, label_store.put_block(*before))
    assert label_store.LabelStore(target, (9, 8), 3, "one", block=16).is_done(window)
    label_store.LabelStore(target, (9, 8), 3, "another", block=16)
    with pytest.raises(FileNotFoundError, match="no more what the block was made for"):
        label_store.put_block(*before)


def test_more_memory_than_any_worker_offers_is_refused() -> None:
    class Client:
        def scheduler_info(self) -> dict:
            workers = {"a": {"resources": {"memory": 1e9}}, "b": {"resources": {}}}
            return {"workers": workers}

    cluster = module._Cluster(Client(), "tcp://there")
    assert cluster.memory(900_000_000) == {"resources": {"memory": 900_000_000}}
    with pytest.raises(ValueError, match=r"needs about 2\.0 GB of memory; no worker"):
        cluster.memory(2_000_000_000)


def test_a_certificate_that_is_not_there_is_told(command, classifier, image) -> None:
    given = "apply", classifier, image, "-o", image.parent / "out"
    outcome = command(*given, "--scheduler", "tls://127.0.0.1:1", "--tls-ca", "no.pem")
    assert outcome.code == 1
    assert "there is no file no.pem" in outcome.err
    assert "Traceback" not in outcome.err
