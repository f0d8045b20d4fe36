"""``demo --gui``: the only command with a window."""

from __future__ import annotations


def launch() -> None:
    """Open napari with the plugin and a sample micrograph; return when it closes."""
    try:
        from napari_hrdv2.widgets import launch_demo
    except ModuleNotFoundError as error:
        raise ImportError(
            f"--gui: napari is not complete here ({error.name} is missing); install it "
            'with pip install "napari-hrdv2[all]"'
        ) from error
    launch_demo()
