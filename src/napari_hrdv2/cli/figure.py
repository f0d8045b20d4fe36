"""The demo's one picture: micrograph, strokes, segmentation and truth in a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.measure.scores import phase_fractions

if TYPE_CHECKING:
    from napari_hrdv2.core.samples import Sample

_MARGIN, _GAP, _CAPTION, _LEGEND = 24, 16, 40, 60
_PAPER, _INK, _PALE = "#ffffff", "#1f2933", "#66727f"


def write_picture(
    path: Path,
    sample: Sample,
    segmentation: NDArray[Any],
    colors: dict[int, str],
    miou: float,
) -> None:
    """Draw the panels with captions above and the classes with their shares below."""
    from PIL import Image, ImageDraw, ImageFont

    panels = [
        ("Micrograph", _as_rgb(sample.image)),
        ("Strokes", _strokes(sample, colors)),
        (f"Segmentation, mIoU {miou:.3f}", _tinted(sample, segmentation, colors)),
        ("Truth", _tinted(sample, sample.labels, colors)),
    ]
    height, width = sample.labels.shape
    size = (
        2 * _MARGIN + len(panels) * (width + _GAP) - _GAP,
        _MARGIN + _CAPTION + height + _LEGEND,
    )
    entry = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(entry)
    font, small = ImageFont.load_default(22), ImageFont.load_default(19)
    for i, (caption, pixels) in enumerate(panels):
        left, top = _MARGIN + i * (width + _GAP), _MARGIN + _CAPTION
        entry.paste(Image.fromarray(pixels), (left, top))
        draw.text((left, top - 12), caption, fill=_INK, font=font, anchor="ls")
    left, middle = _MARGIN, size[1] - _LEGEND // 2
    found, true = phase_fractions(segmentation), phase_fractions(sample.labels)
    for label, name in enumerate(sample.class_names, start=1):
        box = (left, middle - 10, left + 20, middle + 10)
        draw.rounded_rectangle(box, radius=4, fill=colors[label])
        share = f"{found.get(label, 0):.1%}"
        note = f"(true {true.get(label, 0):.1%})"
        left += 30
        for text, ink in ((name, _INK), (share, _INK), (note, _PALE)):
            draw.text((left, middle), text, fill=ink, font=small, anchor="lm")
            left += round(draw.textlength(text, font=small)) + 10
        left += 34
    with atomic_path(path) as temporary:
        entry.save(temporary, format="PNG", optimize=True)


def _as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


def _color_table(colors: dict[int, str]) -> NDArray[np.uint8]:
    table = np.zeros((max(colors) + 1, 3), dtype=np.uint8)
    for label, color in colors.items():
        table[label] = list(bytes.fromhex(color[1:]))
    return table


def _strokes(sample: Sample, colors: dict[int, str]) -> NDArray[np.uint8]:
    """Strokes in full colour on the paler micrograph."""
    pale = (_as_rgb(sample.image) * 0.75 + 0.25 * 255).astype(np.uint8)
    painted = _color_table(colors)[sample.scribbles]
    return np.where(sample.scribbles[..., None] > 0, painted, pale)


def _tinted(
    sample: Sample, labels: NDArray[Any], colors: dict[int, str]
) -> NDArray[np.uint8]:
    """Classes as colours through which the micrograph shows."""
    light = _as_rgb(sample.image).mean(axis=-1, keepdims=True) / 255
    color = _color_table(colors)[labels]
    return np.asarray(color * (0.55 + 0.45 * light)).astype(np.uint8)
