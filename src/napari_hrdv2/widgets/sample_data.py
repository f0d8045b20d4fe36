"""Sample data for napari's menu, and the demo that opens one with the dock widget."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from napari import Viewer

    from napari_hrdv2.core.samples import Sample

    from .widget import SegmentationWidget

DOCK_NAME = "Segmentation (HR-Dv2)"
LayerData = tuple[Any, dict[str, Any], str]


def sample_layers(sample: Sample) -> list[LayerData]:
    """Return image, scribbles and the hidden ground truth as napari layer data."""
    from napari_hrdv2.session import ClassInfo, default_color

    from .viewer.layers import METADATA_KEY, colormap_of, mark_of, name_table

    names = dict(enumerate(sample.class_names, start=1))
    classes = {i: ClassInfo(name, default_color(i)) for i, name in names.items()}
    look = {"colormap": colormap_of(classes), "features": name_table(classes)}
    image_id = uuid4().hex
    mark = {METADATA_KEY: mark_of("scribbles", image_id, class_names=names)}
    image_mark = {METADATA_KEY: {"id": image_id}}
    truth = {"name": "Ground truth", "visible": False, "opacity": 0.5, **look}
    scribbles = {"name": "Scribbles", "opacity": 1.0, "metadata": mark, **look}
    return [
        (sample.image, {"name": sample.kind, "metadata": image_mark}, "image"),
        (sample.labels, truth, "labels"),
        (sample.scribbles.copy(), scribbles, "labels"),
    ]


def grains() -> list[LayerData]:
    """Return the example of the package, with scribbles and ground truth."""
    from napari_hrdv2.core.samples import example

    return sample_layers(example())


def bundled_image(name: str) -> list[LayerData]:
    """Return an image that scikit-image brings along; nothing is downloaded."""
    import skimage.data

    return [(getattr(skimage.data, name)(), {"name": name}, "image")]


# What the manifest names.
immunohistochemistry = partial(bundled_image, "immunohistochemistry")
cell = partial(bundled_image, "cell")
retina = partial(bundled_image, "retina")


def launch_demo() -> None:
    """Open napari with a sample micrograph; return when the window closes."""
    import napari

    open_demo()
    napari.run()


def open_demo(sample: Sample | None = None) -> tuple[Viewer, SegmentationWidget]:
    """Return the viewer and the widget of the demo, computing features already."""
    import napari

    from napari_hrdv2.core.samples import example

    from .widget import SegmentationWidget

    viewer = napari.Viewer(title="napari-hrdv2 demo")
    for data, options, kind in sample_layers(sample or example()):
        getattr(viewer, f"add_{kind}")(data, **options)
    widget = SegmentationWidget(viewer)
    viewer.window.add_dock_widget(widget, name=DOCK_NAME, area="right")
    widget.controller.compute_features()
    return viewer, widget
