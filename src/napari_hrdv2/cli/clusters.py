"""``clusters`` and ``explore``: what micrographs are made of, and where to begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from napari_hrdv2.core.atomic import atomic_path, atomic_paths, write_csv
from napari_hrdv2.core.checks import filled, grey_if_equal, with_missing
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.files import (
    ImageFile,
    find_images,
    read_image,
    write_color_png,
    write_labels,
)
from napari_hrdv2.files.labels import write_picture

from . import shared
from .image_options import Exclude, exclusion_of, first_image
from .shared import Json, Out

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.core.guidance import Place

    Seen = tuple[ImageFile, Features, NDArray[np.bool_] | None]

ENDINGS = ("clusters.tif", "clusters.png", "clusters_colors.png")
FOREGROUND = "clusters_foreground.tif"
KEPT_MEMORY = 0.25  # of what is free: features beyond it are computed twice
TABLE = "places.csv"
_HEADERS = ("place", "image", "row", "column", "share", "kind")
_RING = 10  # pixels
_COLOR = "#ff4fd8"


def clusters(
    images: Annotated[list[Path], typer.Argument(help="Micrographs, or folders.")],
    out: Out,
    count: Annotated[
        int, typer.Option("--clusters", "-k", help="How many, 2 to 50.", metavar="K")
    ] = 8,
    exclude: Exclude = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Write foreground masks, too.")
    ] = False,
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Divide micrographs into clusters, the same in all, without any labels."""
    from napari_hrdv2.core.classifier.clusters import find_clusters, principal_colors
    from napari_hrdv2.core.devices import available_memory, choose_device
    from napari_hrdv2.core.features.base import StoredPixels
    from napari_hrdv2.core.guidance.foreground import principal_foreground
    from napari_hrdv2.session.batch import jobs_for
    from napari_hrdv2.session.classes import default_color
    from napari_hrdv2.session.inspection.looking import FEWEST_CLUSTERS, MOST_CLUSTERS

    report = shared.Report(as_json)
    if not FEWEST_CLUSTERS <= count <= MOST_CLUSTERS:
        raise ValueError(
            f"--clusters: {count} is not from {FEWEST_CLUSTERS} to {MOST_CLUSTERS}"
        )
    files = find_images(images).files
    if not files:
        raise ValueError(f"images: {images[0]} has no micrograph; name some")
    shared.make_folder(out)
    look = _looker(files, exclude, features, report)
    room = KEPT_MEMORY * available_memory(choose_device(features.device))
    kept: dict[Path, Seen] = {}
    joint: list[Features] = []
    masks: list[Any] = []
    for path in files:
        seen = _, made, mask = look(path)
        if joint and made.shape[0] != joint[0].shape[0]:
            raise ValueError(
                f"images: {path} is in colour and {files[0]} is not, or the other way "
                "round; give all in grey or all in colour"
            )
        room -= made.nbytes
        if room > 0:
            kept[path] = seen
        joint.append(made if room > 0 else StoredPixels(made, np.empty(0, int)))
        masks.append(mask)
    found = find_clusters(joint, count, exclusion=masks)
    colors = principal_colors(joint, exclusion=masks)
    table = {i: default_color(i) for i in range(1, found.count + 1)}
    endings, front = [*ENDINGS], None
    if foreground:
        pictures = (read_image(path).data for path in files)
        front = principal_foreground(joint, pictures, exclusion=masks)
        endings.append(FOREGROUND)

    results: list[dict[str, Any]] = []
    for job in jobs_for(files, out, endings):
        source, made, mask = kept.pop(job.file) if job.file in kept else look(job.file)
        labels, picture = found.predict(made, first=1), colors.paint(made)
        if mask is not None:
            labels[mask], picture[mask] = 0, 0
        stem = job.target.with_suffix("")
        outputs = [job.target, Path(f"{stem}.png"), Path(f"{stem}_colors.png")]
        with atomic_paths(*outputs) as (tiff, preview, components):
            write_labels(tiff, labels, pixel_size=source.pixel_size, unit=source.unit)
            write_color_png(preview, labels, table)
            write_picture(components, picture)
        if front is not None:
            sides = front.predict(made)
            if mask is not None:
                sides[mask] = 0
            outputs.append(Path(f"{stem}_foreground.tif"))
            with atomic_path(outputs[-1]) as path:
                write_labels(
                    path, sides, pixel_size=source.pixel_size, unit=source.unit
                )
        counts = np.bincount(labels.ravel(), minlength=1 + found.count)[1:]
        shares = counts / max(counts.sum(), 1)
        results.append(
            {
                "image": str(job.file),
                "shares": shared.by_id(dict(enumerate(shares.tolist(), start=1))),
                "outputs": [str(path) for path in outputs],
            }
        )
        for path in outputs:
            report.say(f"wrote {path}")
    report.finish({"clusters": found.count, "images": results})


def explore(
    images: Annotated[
        list[Path],
        typer.Argument(help="The micrograph, or several that share the places."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the table and pictures.")
    ],
    places: Annotated[
        int, typer.Option(min=1, help="How many places to propose for a name.")
    ] = 16,
    exclude: Exclude = None,
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Propose places to paint first: those whose names tell the most."""
    from napari_hrdv2 import propose_places

    report = shared.Report(as_json)
    pictures = _pictures(images, out)
    planned = {"--out": [out / TABLE, *pictures]}
    shared.make_folder(out)
    shared.check_outputs(planned, images)
    look = _looker(images, exclude, features, report)
    sources, made, masks = zip(*map(look, images), strict=True)
    found = propose_places(
        made, places, exclusion=masks, progress=report.progress("places")
    )
    rows: list[list[object]] = []
    for number, one in enumerate(found, 1):
        rows.append(
            [
                number,
                str(images[one.image]),
                one.row,
                one.column,
                round(one.share, 6),
                "rare" if one.is_rare else "common",
            ]
        )
    write_csv(out / TABLE, _HEADERS, rows)
    for number, (path, source) in enumerate(zip(pictures, sources, strict=True)):
        here = [(n, one) for n, one in enumerate(found, 1) if one.image == number]
        _draw(path, source.data, here)
    report.say(f"{len(found)} places of {len(images)} images")
    for path in planned["--out"]:
        report.say(f"wrote {path}")
    report.finish(
        {
            "places": [dict(zip(_HEADERS, row, strict=True)) for row in rows],
            "outputs": [str(path) for path in planned["--out"]],
        }
    )


def _looker(
    files: Sequence[Path],
    exclude: Sequence[str] | None,
    options: FeatureOptions,
    report: shared.Report,
) -> Callable[[Path], Seen]:
    """Return what reads an image and computes its features and exclusion mask."""
    from napari_hrdv2.core.features.compute import compute_features

    backbone = shared.load(options, report)
    excluded = exclusion_of(exclude, first_image(files)) if exclude else None

    def look(path: Path) -> Seen:
        source = read_image(path)
        image = grey_if_equal(source.data)
        mask = excluded.mask_for(image.shape[:2]) if excluded else None
        if excluded and mask is None:
            report.complain(f"{path}: of another size, nothing of it is excluded")
        told = report.progress(f"features of {path.name}")
        made = compute_features(
            filled(image), backbone, progress=told, **options.choices
        )
        return source, made, with_missing(mask, image)

    return look


def _pictures(images: Sequence[Path], out: Path) -> list[Path]:
    """Return where the pictures go; those of one name get a number."""
    stems = [path.stem for path in images]
    return [
        out / f"{stem}{f'_{number}' * (stems.count(stem) > 1)}_places.png"
        for number, stem in enumerate(stems, 1)
    ]


def _draw(path: Path, image: NDArray[Any], places: list[tuple[int, Place]]) -> None:
    """Write an image with numbered rings around its places."""
    from PIL import Image, ImageDraw, ImageFont

    levels = image[..., :3].astype(np.float64)
    if image.ndim == 2:
        levels = image.astype(np.float64)
    low, high = np.nanpercentile(levels[np.isfinite(levels)], (0.5, 99.5))
    shown = np.nan_to_num((levels - low) / max(high - low, 1e-12)).clip(0, 1) * 255
    picture = Image.fromarray(shown.astype(np.uint8)).convert("RGB")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for number, place in places:
        y, x = place.row, place.column
        draw.ellipse((x - _RING, y - _RING, x + _RING, y + _RING), outline=_COLOR)
        left = x + _RING + 2 if x < picture.width - 40 else x - _RING - 18
        draw.text((left, y - 8), str(number), fill=_COLOR, font=font)
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG")
