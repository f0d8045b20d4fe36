"""``demo --gui``: the only command with a window."""

from __future__ import annotations

import os
import sys


def launch(kind: str) -> None:
    """Open napari with the plugin and a sample micrograph; return when it closes."""
    from napari_hrdv2.core.samples import make_sample

    sample = make_sample(kind)
    _check_display()
    try:
        from napari_hrdv2.widgets import launch_demo
    except ModuleNotFoundError as error:
        raise ImportError(
            f"--gui: napari is not complete here ({error.name} is missing); install it "
            'with pip install "napari-hrdv2[all]"'
        ) from error
    launch_demo(sample)


def _check_display() -> None:
    """Raise OSError where Qt would end the whole process."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, names)):
        raise OSError(
            "--gui: there is no display (DISPLAY and WAYLAND_DISPLAY are not set); "
            "start it in a desktop session, or leave --gui out"
        )
