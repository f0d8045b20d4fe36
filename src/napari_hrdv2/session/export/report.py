"""The report of a batch: one HTML file with pictures, plots, a table and settings."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.files import open_image
from napari_hrdv2.files.folders import own_path
from napari_hrdv2.session.batch import class_colors
from napari_hrdv2.session.batch.applied import Applied
from napari_hrdv2.session.planes import PlaneKey
from napari_hrdv2.session.snapshots import Measured

from .content import software_versions
from .methods import normalisation_sentence

NAME = "report.html"
_THUMBNAIL, _BAND = 220, 1024  # px: the longer side, and rows in memory
_PLOT = 720, 150, 46  # px: width, height, and what the numbers take
_TOPS = 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8  # of plots, where all are below
_MARK = 'name="generator" content="napari-hrdv2"'
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 2em auto;
  padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .35em .7em; text-align: left;
  border-bottom: 1px solid #ddd; vertical-align: top }
td img { image-rendering: pixelated; max-width: 220px; display: block }
.flagged { background: #fff1e0 } .small { color: #666; font-size: 13px }
svg text { font-size: 11px; fill: #666 }"""


def mean_of(
    results: Sequence[Applied], *, with_flagged: bool = False
) -> tuple[Measured | None, str]:
    """Return the fractions of all images together, and what they leave out, in words.

    Without `with_flagged` that is what is flagged; where all are, there is no mean.
    """
    done = [one for one in results if one.measured is not None]
    kept = [one for one in done if with_flagged or not one.is_flagged]
    told = f"Mean of {len(kept)} of {len(done)} images"
    if flagged := len(done) - len(kept):
        told += f"; {flagged} flagged as doubtful left out"
    if not kept:
        return None, f"{told}: there is none"
    keys = {PlaneKey(str(one.job.file)): one for one in kept}
    measured = Measured.of(
        {key: one.measured for key, one in keys.items() if one.measured is not None},
        {key: one.job.file.name for key, one in keys.items()},
        {key: one.pixel_size for key, one in keys.items()},
    )
    return measured, told


def mean_text(results: Sequence[Applied], names: Mapping[int, str]) -> str:
    """Return the mean in one line, without what is flagged and with it."""
    texts = []
    for with_flagged in (False, True)[: 1 + any(one.is_flagged for one in results)]:
        measured, told = mean_of(results, with_flagged=with_flagged)
        listed = (
            f"{names.get(one.class_id, f'class {one.class_id}')} "
            f"{fraction_text(one.fraction, one.error)}"
            for one in (measured.together.phases if measured else ())
        )
        texts.append(f"{told}: {', '.join(listed)}" if measured else told)
    return ". ".join(texts)


def report_in(folder: Path) -> Path:
    """Return where the report goes: in place of a former one, and of nothing else."""
    return own_path(folder / NAME, lambda text: _MARK in text)


def write_report(
    path: Path,
    results: Sequence[Applied],
    classifier: PixelClassifier,
    settings: Mapping[str, object],
) -> None:
    """Write a report that needs no other file; `settings` are told by their names."""
    names = {
        int(i): classifier.class_names.get(int(i), f"class {i}")
        for i in classifier.classes
    }
    done, colors = [one for one in results if one.measured], class_colors(classifier)
    texts = [text for one in results if (text := one.error or one.left_out)]
    failures = "".join(f"<li>{escape(text)}</li>" for text in texts)
    body = [
        "<h1>Phase fractions of a series</h1>",
        _mean(results, names),
        *(_plot(done, i, names[i], colors[i]) for i in names),
        "<h2>Images</h2>",
        _images(done, names, colors),
        f"<h2>Without a result</h2><ul>{failures}</ul>" if failures else "",
        "<h2>How it was made</h2>",
        f"<p>{escape(normalisation_sentence(classifier.normalisation))}</p>",
        _table({**settings, **software_versions()}.items()),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta {_MARK}>'
        f"<title>Phase fractions</title><style>{_STYLE}</style></head>"
        f"<body>{chr(10).join(body)}</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _mean(results: Sequence[Applied], names: Mapping[int, str]) -> str:
    measured, told = mean_of(results)
    if any(one.is_flagged for one in results):
        told = mean_text(results, names)
    if measured is None:
        return f"<p>{escape(told)}.</p>"
    rows = [
        (names.get(one.class_id, one.class_id), fraction_text(one.fraction, one.error))
        for one in measured.together.phases
    ]
    about = " ".join(
        f"{text[:1].upper()}{text[1:]}." if not text.endswith(".") else text
        for text in (told, f"error: {measured.together.method}", measured.note)
        if text
    )
    return f'{_table(rows)}<p class="small">{escape(about)}</p>'


def fraction_text(fraction: float, error: float | None) -> str:
    """Return a fraction with its error bar, in percent."""
    bar = "" if error is None else f" ± {100 * error:.1f}"
    return f"{100 * fraction:.1f}{bar} %"


def doubt_text(result: Applied) -> str:
    """Return how doubtful a result is, in words."""
    if result.doubt is None:
        return "labelled" if result.is_labelled else "unknown"
    told = f"{result.doubt:.0%}" if result.doubt >= 0.01 else "below 1%"
    return f"{told}{', flagged' * result.is_flagged}"


def _images(
    done: Sequence[Applied], names: Mapping[int, str], colors: Mapping[int, str]
) -> str:
    rows = []
    for one in done:
        measured = one.measured
        assert measured is not None
        cells = [
            f"<td>{_thumbnail(one.job.file)}</td>",
            f"<td>{_thumbnail(one.outputs[0], colors)}</td>",
            f'<td title="{escape(str(one.job.file))}">{escape(one.job.file.name)}',
            *(f'<br><span class="small">{escape(note)}</span>' for note in one.notes),
            "</td>",
            *(
                f"<td>{escape(fraction_text(phase.fraction, phase.error))}</td>"
                for phase in measured.phases
            ),
            f"<td>{escape(doubt_text(one))}</td>",
        ]
        flagged = ' class="flagged"' * one.is_flagged
        rows.append(f"<tr{flagged}>{''.join(cells)}</tr>")
    heads = "image", "result", "file", *names.values(), "doubt"
    about = (
        "Doubt is how probable it is that the mean IoU is below 0.5, by how much "
        "the classifier trusts its result and how much it had to be adapted; from 20 % "
        "on an image is flagged. It is unknown where the classifier keeps nothing "
        "to tell by."
    )
    head = "".join(f"<th>{escape(str(one))}</th>" for one in heads)
    table = f"<table><tr>{head}</tr>{''.join(rows)}</table>"
    return f'<p class="small">{about}</p>{table}'


def _table(rows: Iterable[tuple[object, object]]) -> str:
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _plot(done: Sequence[Applied], class_id: int, name: str, color: str) -> str:
    """Return the fractions of one class, image by image, as SVG."""
    width, height, left = _PLOT
    points = [
        (one, phase)
        for one in done
        if one.measured is not None
        for phase in one.measured.phases
        if phase.class_id == class_id
    ]
    if not points:
        return ""
    top = max(phase.fraction + (phase.error or 0) for _, phase in points)
    top = next((each for each in _TOPS if each >= top), 1.0)
    step = (width - left - 12) / len(points)
    radius = round(min(4, max(1.5, step / 2)), 1)

    def y(fraction: float) -> float:
        return round(8 + (height - 24) * (1 - min(max(fraction / top, 0), 1)), 1)

    marks = [
        f'<line x1="{left}" x2="{width}" y1="{y(at)}" y2="{y(at)}" stroke="#ddd"/>'
        f'<text x="{left - 6}" y="{y(at) + 4}" text-anchor="end">'
        f"{100 * at:.3g} %</text>"
        for at in (0.0, top / 2, top)
    ]
    for number, (one, phase) in enumerate(points):
        x = round(left + 6 + step * (number + 0.5), 1)
        low, high = phase.interval or (phase.fraction, phase.fraction)
        fill = "#fff" if one.is_flagged else escape(color)
        told = fraction_text(phase.fraction, phase.error)
        tip = f"{one.job.file.name}: {told}, doubt {doubt_text(one)}"
        marks.append(
            f'<g stroke="{escape(color)}"><line x1="{x}" x2="{x}" y1="{y(low)}" '
            f'y2="{y(high)}"/><circle cx="{x}" cy="{y(phase.fraction)}" r="{radius}" '
            f'fill="{fill}" stroke-width="2"><title>{escape(tip)}</title></circle></g>'
        )
    return (
        f"<h2>{escape(name)}</h2>"
        f'<svg width="{width}" height="{height}" role="img">{"".join(marks)}</svg>'
        '<p class="small">One mark for each image, in the order of the table, with the '
        "95 % interval of its fraction; open: flagged as doubtful.</p>"
    )


def _thumbnail(path: Path, colors: Mapping[int, str] | None = None) -> str:
    """Return an image file, or labels in their colours, as a small picture."""
    from PIL import Image

    try:
        part = _thinned(open_image(path).data)
    except (OSError, ValueError):  # it was there when it was segmented
        return ""
    stream = io.BytesIO()
    if colors is None:  # a picture of noise would be four times as large as PNG
        kind = "jpeg"
        Image.fromarray(_shown(part)).save(stream, kind, quality=85)
    else:
        kind, table = "png", np.zeros((max(colors) + 1, 3), np.uint8)
        for i, color in colors.items():
            table[i] = list(bytes.fromhex(color[1:]))
        Image.fromarray(table[part]).save(stream, kind, optimize=True)
    content = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="" src="data:image/{kind};base64,{content}">'


def _thinned(data: Any) -> NDArray[Any]:
    """Return every n-th pixel; of an image in a file, band by band."""
    levels = [data, *getattr(data, "levels", ())]
    data = [one for one in levels if max(one.shape[:2]) >= _THUMBNAIL or one is data][
        -1
    ]
    step = -(-max(data.shape[:2]) // _THUMBNAIL)
    band = step * -(-_BAND // step)
    tops = range(0, data.shape[0], band)
    return np.concatenate([data[top : top + band : step, ::step] for top in tops])


def _shown(part: NDArray[Any]) -> NDArray[np.uint8]:
    """Return grey levels or colours from 0 to 255."""
    part = np.nan_to_num(part[..., :3] if part.ndim == 3 else part)
    if part.dtype == np.uint8 and part.ndim == 3:
        return np.ascontiguousarray(part)
    part = part.astype(np.float64)  # booleans have no quantiles
    low, high = np.quantile(part, (0.005, 0.995))
    grey = (part - low) / max(float(high - low), 1e-12)
    levels: NDArray[np.uint8] = np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    return levels
