"""A cluster that is reached with certificates alone, by a test's own authority."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("distributed", reason="TLS: dask.distributed is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("openssl") is None,
        reason="TLS: there is no openssl here to make certificates with",
    ),
]
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*arguments: object) -> None:
    given = ["openssl", *map(str, arguments)]
    made = subprocess.run(given, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def certified(folder: Path, name: str, authority: str) -> None:
    """Make NAME.key, and NAME.pem signed by an authority: itself, if that is it."""
    key, pem = folder / f"{name}.key", folder / f"{name}.pem"
    about = *NEW_KEY, "-keyout", key, "-subj", f"/CN={name}"
    if name == authority:
        openssl("req", "-x509", *about, "-out", pem, "-days", 2)
        return
    ca = "-CA", folder / f"{authority}.pem", "-CAkey", folder / f"{authority}.key"
    openssl("req", *about, "-out", folder / "request")
    signed = "-req", "-in", folder / "request", "-set_serial", len(name), "-days", 2
    openssl("x509", *signed, *ca, "-out", pem)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A folder with the certificates of two authorities, and of who has one of them."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("authority", "client", "scheduler", "worker"):
        certified(folder, name, "authority")
    for name in ("another", "stranger"):
        certified(folder, name, "another")
    return folder


@pytest.fixture(scope="module")
def address(certificates: Path):
    """A scheduler with a worker, which talk with nobody who has no certificate."""
    file, started = certificates / "scheduler.json", []
    about = ["--scheduler-file", file, "--no-dashboard", "--protocol", "tls"]
    for name, options in (
        ("scheduler", ["--host", "127.0.0.1", "--port", 0]),
        ("worker", ["--no-nanny", "--nthreads", 1]),
    ):
        own = ["--tls-ca-file", certificates / "authority.pem"]
        own += ["--tls-cert", certificates / f"{name}.pem"]
        own += ["--tls-key", certificates / f"{name}.key"]
        given = [sys.executable, "-m", "dask", name, *options, *about, *own]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen([*map(str, given)], **quiet))
    for _ in range(600):
        if file.exists() and file.read_text().endswith("}"):
            break
        threading.Event().wait(0.1)
    yield json.loads(file.read_text())["address"]
    for process in started:
        process.kill()
        process.wait()


def options_of(folder: Path, **others: str) -> list[object]:
    names = {"ca": "authority.pem", "cert": "client.pem", "key": "client.key"}
    given = (names | others).items()
    return [part for name, file in given for part in (f"--tls-{name}", folder / file)]


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "apply_log.jsonl"  # which has the seconds
    }


@pytest.mark.parametrize("blocks", [False, True])
def test_files_and_blocks_over_tls_are_those_of_one_machine(
    command, classifier, image, tmp_path, certificates, address, blocks
) -> None:
    assert address.startswith("tls://")
    if blocks:
        tile = tifffile.imread(image)
        tifffile.imwrite(image, np.tile(tile, (60, 1)), tile=(256, 64))  # two blocks
    given = "apply", classifier, image, *["--blocks"] * blocks, "-o"
    assert command(*given, tmp_path / "here").code == 0
    secured = "--scheduler", address, *options_of(certificates)
    outcome = command(*given, tmp_path / "there", *secured)
    assert outcome.code == 0, outcome.err
    here, there = content(tmp_path / "here"), content(tmp_path / "there")
    assert len(there) > 2
    assert there.keys() == here.keys()
    for name, file in here.items():
        assert there[name] == file, name


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"ca": "another.pem"}, "cannot be reached: TLS certificate does not match; "),
        ({"cert": "stranger.pem", "key": "stranger.key"}, "cannot be reached: "),
        ({"key": "stranger.key"}, "key values mismatch"),
        ({"key": "nobody.key"}, "--tls: there is no file "),
        (None, "Instead got None; are --tls-ca, --tls-cert and --tls-key its own?"),
    ],
    ids=str,
)
def test_who_has_not_the_certificates_is_told_in_a_sentence(
    command, classifier, image, tmp_path, certificates, address, others, told
) -> None:
    options = [] if others is None else options_of(certificates, **others)
    given = "apply", classifier, image, "-o", tmp_path / "out"
    outcome = command(*given, "--scheduler", address, *options)
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert told in line
    assert line.startswith("napari-hrdv2: --")


def test_certificates_for_an_address_without_encryption_are_refused(
    command, classifier, image, tmp_path, certificates, monkeypatch
) -> None:
    monkeypatch.setattr("distributed.Client", None)  # nobody is asked
    given = "apply", classifier, image, "-o", tmp_path / "out", "--scheduler"
    outcome = command(*given, "tcp://127.0.0.1:8786", *options_of(certificates))
    assert outcome.code == 1
    assert "tcp://127.0.0.1:8786 is not encrypted" in outcome.err
