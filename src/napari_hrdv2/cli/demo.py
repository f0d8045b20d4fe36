"""``demo``: the example micrograph segmented from its scribbles; no download."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure.scores import mean_iou, phase_fractions
from napari_hrdv2.files import ImageFile, is_ours, write_image, write_labels

from . import shared
from .shared import Json, Out

if TYPE_CHECKING:
    from napari_hrdv2.core.samples import Sample

_MARGIN, _GAP, _CAPTION, _LEGEND = 24, 16, 40, 60  # px of the drawing
_MICROGRAPH = "micrograph.tif"
_WRITTEN = (
    *("demo.png", "segmentation.tif", "segmentation.png"),
    *(_MICROGRAPH, "scribbles.tif"),
)
_PAPER, _INK, _PALE = "#ffffff", "#1f2933", "#66727f"


def demo(
    out: Out = Path("demo"),
    gui: Annotated[
        bool, typer.Option("--gui", help="Show it in napari; no other option counts.")
    ] = False,
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Segment the example micrograph from its scribbles, and draw the result."""
    from napari_hrdv2.core.samples import example

    report = shared.Report(as_json)
    if gui:
        open_window()
        report.finish({"outputs": []})
        return
    sample = example()
    names = dict(enumerate(sample.class_names, start=1))
    shared.make_folder(out)
    _check_free(out)
    start = time.perf_counter()
    backbone = shared.load(features, report)
    trained = shared.train(
        [sample.image], [sample.scribbles], backbone, features, report
    )
    classifier = trained.classifier
    segmentation = classifier.predict(trained.features[0])
    seconds = time.perf_counter() - start
    classifier.class_names = names
    outputs = _write(out, sample, segmentation, classifier)

    unseen = sample.scribbles == 0
    miou = mean_iou(sample.labels[unseen], segmentation[unseen], list(names))
    drawing = out / "demo.png"
    draw_panels(drawing, sample, segmentation, classifier.class_colors, miou)
    report.say(
        f"The example ({sample.kind}), {(~unseen).mean():.1%} of it under scribbles, "
        f"segmented with {features.backbone} features in {seconds:.1f} s."
    )
    report.say(f"mIoU on the pixels without a scribble: {miou:.3f}")
    found, true = phase_fractions(segmentation), phase_fractions(sample.labels)
    for i, name in names.items():
        report.say(f"  {name}: {found.get(i, 0):.1%} (true: {true[i]:.1%})")
    report.say(f"The drawing is {drawing}")
    report.finish(
        {
            "miou": miou,
            "phase_fractions": shared.by_id(found),
            "class_names": shared.by_id(names),
            "seconds": round(seconds, 3),
            "outputs": [str(drawing), *map(str, outputs)],
        }
    )


def open_window() -> None:
    """Open napari with the plugin and the example; return when it closes."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, names)):
        raise OSError(  # Qt would end the whole process
            "--gui: there is no display (DISPLAY and WAYLAND_DISPLAY are not set); "
            "start it in a desktop session, or leave --gui out"
        )
    try:
        from napari_hrdv2.widgets import launch_demo
    except ModuleNotFoundError as error:
        raise ImportError(
            f"--gui: napari is not complete here ({error.name} is missing); install it "
            'with pip install "napari-hrdv2[all]"'
        ) from error
    launch_demo()


def _check_free(folder: Path) -> None:
    """Raise ValueError where files of others would be replaced."""
    if is_ours(folder / _MICROGRAPH):  # of a former demo, as is the rest
        return
    for path in (folder / name for name in _WRITTEN):
        if path.exists() and not is_ours(path):
            raise ValueError(
                f"--out: {path} would be replaced, and napari-hrdv2 did not write it; "
                "name another folder"
            )


def _write(
    out: Path, sample: Sample, segmentation: NDArray[Any], classifier: Any
) -> list[Path]:
    """Write the segmentation, and what `segment` needs to do the same again."""
    from napari_hrdv2.session.batch import class_colors, write_segmentation

    names, colors = classifier.class_names, class_colors(classifier)
    classifier.class_colors = colors
    source = ImageFile(sample.image)
    outputs = write_segmentation(
        out / "segmentation.tif", segmentation, classifier, source
    )
    image, scribbles = out / _MICROGRAPH, out / "scribbles.tif"
    with atomic_path(image) as temporary:
        write_image(temporary, sample.image)
    write_labels(scribbles, sample.scribbles, class_names=names, class_colors=colors)
    return [*outputs, image, scribbles]


def draw_panels(
    path: Path,
    sample: Sample,
    segmentation: NDArray[Any],
    colors: dict[int, str],
    miou: float,
) -> None:
    """Draw micrograph, scribbles, segmentation and truth in a row, with a legend."""
    from PIL import Image, ImageDraw, ImageFont

    table = np.zeros((max(colors) + 1, 3), np.uint8)
    for label, color in colors.items():
        table[label] = list(bytes.fromhex(color[1:]))
    grey = np.repeat(sample.image[..., None], 3, axis=-1)
    light = 0.55 + 0.45 * grey / 255  # how the micrograph shows through the classes
    pale = 0.75 * grey + 0.25 * 255
    drawn = sample.scribbles[..., None] > 0
    panels = {
        "Micrograph": grey,
        "Scribbles": np.where(drawn, table[sample.scribbles], pale),
        f"Segmentation, mIoU {miou:.3f}": table[segmentation] * light,
        "Truth": table[sample.labels] * light,
    }
    height, width = sample.labels.shape
    size = (
        2 * _MARGIN + len(panels) * (width + _GAP) - _GAP,
        _MARGIN + _CAPTION + height + _LEGEND,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(22), ImageFont.load_default(19)
    left, top = _MARGIN, _MARGIN + _CAPTION
    for caption, pixels in panels.items():
        sheet.paste(Image.fromarray(pixels.astype(np.uint8)), (left, top))
        draw.text((left, top - 12), caption, fill=_INK, font=font, anchor="ls")
        left += width + _GAP
    left, middle = _MARGIN, size[1] - _LEGEND // 2
    found, true = phase_fractions(segmentation), phase_fractions(sample.labels)
    for label, name in enumerate(sample.class_names, start=1):
        box = (left, middle - 10, left + 20, middle + 10)
        draw.rounded_rectangle(box, radius=4, fill=colors[label])
        fraction = f"{found.get(label, 0):.1%}"
        note = f"(true {true.get(label, 0):.1%})"
        left += 30
        for text, ink in ((name, _INK), (fraction, _INK), (note, _PALE)):
            draw.text((left, middle), text, fill=ink, font=small, anchor="lm")
            left += round(draw.textlength(text, font=small)) + 10
        left += 34
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
