from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "napari", "sklearn", "scipy", "skimage", "qtpy", "tifffile", "numpy")


def _loaded_after(statement: str) -> list[str]:
    code = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return eval(done.stdout)


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded_after("import napari_hrdv2") == []


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert _loaded_after("import napari_hrdv2.cli") == []


def test_the_core_needs_no_window() -> None:
    statement = "import napari_hrdv2 as hr; hr.PixelClassifier, hr.compute_features"
    loaded = _loaded_after(statement)
    assert "torch" in loaded
    assert not {"napari", "qtpy", "skimage"} & set(loaded)


def test_files_and_session_need_no_window() -> None:
    loaded = _loaded_after("import napari_hrdv2.files, napari_hrdv2.session")
    assert not {"napari", "qtpy", "skimage"} & set(loaded)
