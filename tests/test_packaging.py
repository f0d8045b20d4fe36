"""The manifest reaches users by wheel, sdist and editable install alike."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

PACKAGED = "napari_hrdv2/napari.yaml"


def _python(*arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _build(kind: str, source: Path, out: Path) -> Path:
    _python("-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def top() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sdist(top: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("sdist", top, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the sdist."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        # Python 3.11.0 to 3.11.3 knows no filters; the archive is our own.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(unpacked, **safe)
    (source,) = unpacked.iterdir()
    return _build("wheel", source, tmp_path_factory.mktemp("wheel"))


def test_the_sdist_holds_the_manifest_once_and_as_a_file(
    sdist: Path, top: Path
) -> None:
    with tarfile.open(sdist) as archive:
        (member,) = [m for m in archive.getmembers() if m.name.endswith("napari.yaml")]
        assert member.isfile()
        assert member.name.count("/") == 1
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == (top / "napari.yaml").read_bytes()


def test_the_sdist_holds_what_its_makefile_calls(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"Makefile", "constraints.txt", ".ci/run-tests"} <= names


def test_the_wheel_installs_what_images_are_read_with(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
        lines = archive.read(name).decode().splitlines()
    for package in ("imagecodecs", "tifffile", "zarr"):
        (line,) = [x for x in lines if x.startswith(f"Requires-Dist: {package}")]
        assert "extra" not in line


def test_the_wheel_holds_the_manifest_and_the_marker_of_its_types(
    wheel: Path, top: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(PACKAGED) == (top / "napari.yaml").read_bytes()
        names = archive.namelist()
    assert "napari_hrdv2/py.typed" in names
    assert "napari_hrdv2/core/samples/example.npz" in names
    assert not [name for name in names if "micrographs" in name]
    assert not [name for name in names if name.startswith("tests")]


def test_napari_finds_the_plugin_of_an_installed_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    options = ["--no-deps", "--no-index", "--quiet", "--target", site]
    _python("-m", "pip", "install", *options, wheel, cwd=tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import napari_hrdv2; print(napari_hrdv2.__file__)\n"
        "from npe2 import PluginManifest\n"
        "print(PluginManifest.from_distribution('napari-hrdv2').name)"
    )
    lines = _python("-W", "ignore", "-c", code, cwd=tmp_path).splitlines()
    assert lines[0].startswith(str(site))
    assert lines[1] == "napari-hrdv2"


def test_an_editable_install_reads_the_manifest_at_the_top(top: Path) -> None:
    link = top / "src" / PACKAGED
    assert link.is_symlink()
    assert link.resolve() == top / "napari.yaml"


def test_the_manifest_is_valid_and_all_it_names_can_be_imported() -> None:
    pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-hrdv2")
    manifest.validate_imports()
    assert manifest.contributions.widgets
    assert manifest.contributions.sample_data


def test_the_version_is_the_same_everywhere(top: Path) -> None:
    version = tomllib.loads((top / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (top / "CITATION.cff").read_text()
    assert f"\n## [{version}]" in (top / "CHANGELOG.md").read_text()


def test_every_pinned_direct_dependency_is_allowed_by_the_project(top: Path) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((top / "pyproject.toml").read_text())["project"]
    lines = (top / "constraints.txt").read_text().splitlines()
    pins = {
        name.lower().replace("_", "-"): version
        for name, version in (line.split("==") for line in lines if "==" in line)
    }
    for requirement in map(Requirement, project["dependencies"]):
        pinned = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pinned), requirement
