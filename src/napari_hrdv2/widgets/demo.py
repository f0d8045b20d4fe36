"""napari with a sample micrograph, segmented from its scribbles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sample_data import sample_layers
from .widget import SegmentationWidget

if TYPE_CHECKING:
    import napari

    from napari_hrdv2.core.samples import Sample

DOCK_NAME = "High-resolution segmentation"


def launch_demo(sample: Sample | None = None) -> None:
    """Open napari with an image and the plugin, and return when the window closes.

    Parameters
    ----------
    sample : Sample, optional
        A sample micrograph, which is segmented from its scribbles. The default has
        three phases.
    """
    import napari

    open_demo(sample)
    napari.run()


def open_demo(
    sample: Sample | None = None,
) -> tuple[napari.Viewer, SegmentationWidget]:
    """Return the viewer and the widget of the demo, computing features already."""
    import napari

    from napari_hrdv2.core.samples import example

    viewer = napari.Viewer(title="napari-hrdv2 demo")
    for data, options, kind in sample_layers(sample or example()):
        getattr(viewer, f"add_{kind}")(data, **options)
    widget = SegmentationWidget(viewer)
    viewer.window.add_dock_widget(widget, name=DOCK_NAME, area="right")
    widget.controller.compute_features()
    return viewer, widget
