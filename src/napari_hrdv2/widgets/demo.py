"""napari with a sample micrograph, segmented from its scribbles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hrdv2.widgets.sample_data import sample_layers
from napari_hrdv2.widgets.segmentation import SegmentationWidget

if TYPE_CHECKING:
    import napari

    from napari_hrdv2.core.samples import Sample

DOCK_NAME = "High-resolution segmentation"


def launch_demo(sample: Sample | str | os.PathLike[str] | None = None) -> None:
    """Open napari with an image and the plugin, and return when the window closes.

    Parameters
    ----------
    sample : Sample or path-like, optional
        A sample micrograph, which is segmented from its scribbles, or an image file,
        which is opened to be painted. The default is a sample with three phases.
    """
    import napari

    open_demo(sample)
    napari.run()


def open_demo(
    sample: Sample | str | os.PathLike[str] | None = None,
) -> tuple[napari.Viewer, SegmentationWidget]:
    """Return the viewer and the widget of the demo, computing features already."""
    import napari

    viewer = napari.Viewer(title="napari-hrdv2 demo")
    if isinstance(sample, (str, os.PathLike)):
        _add_file(viewer, Path(sample))
    else:
        _add_sample(viewer, sample)
    widget = SegmentationWidget(viewer)
    viewer.window.add_dock_widget(widget, name=DOCK_NAME, area="right")
    widget.controller.compute_features()
    return viewer, widget


def _add_file(viewer: napari.Viewer, path: Path) -> None:
    from napari_hrdv2.files import read_image

    image = read_image(path)
    side = image.pixel_size or 1.0
    viewer.add_image(
        image.data,
        name=path.stem,
        scale=(side, side),
        units=(image.unit, image.unit),
    )


def _add_sample(viewer: napari.Viewer, sample: Sample | None) -> None:
    from napari_hrdv2.core.samples import make_sample

    for data, options, kind in sample_layers(sample or make_sample("grains")):
        getattr(viewer, f"add_{kind}")(data, **options)
