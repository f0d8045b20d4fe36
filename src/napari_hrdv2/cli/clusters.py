"""``clusters``: what micrographs are made of, found without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions

from . import shared
from .image_options import Exclude, exclusion_of, first_shape
from .shared import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_hrdv2.core.features.base import Features
    from napari_hrdv2.files import ImageFile

    Seen = tuple[ImageFile, Features, NDArray[np.bool_] | None]

FEWEST, MOST = 2, 50
ENDINGS = ("clusters.tif", "clusters.png", "clusters_colors.png")
KEPT_MEMORY = 0.25  # of what is free: features beyond it are computed twice


def clusters(
    images: Annotated[list[Path], typer.Argument(help="Micrographs, or folders.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the results.")
    ],
    count: Annotated[
        int, typer.Option("--clusters", "-k", help="How many, 2 to 50.", metavar="K")
    ] = 8,
    exclude: Exclude = None,
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Divide micrographs into clusters, the same in all, without any labels."""
    import numpy as np

    from napari_hrdv2.core.atomic import atomic_paths
    from napari_hrdv2.core.classifier.clusters import find_clusters, principal_colors
    from napari_hrdv2.core.devices import available_memory, choose_device
    from napari_hrdv2.core.features.base import StoredPixels
    from napari_hrdv2.files import find_images, write_color_png, write_labels
    from napari_hrdv2.files.labels import write_picture
    from napari_hrdv2.session.batch import jobs_for
    from napari_hrdv2.session.classes import default_color

    report = shared.Report(as_json)
    if not FEWEST <= count <= MOST:
        raise ValueError(f"--clusters: {count} is not from {FEWEST} to {MOST}")
    files = find_images(images).files
    if not files:
        raise ValueError(f"images: {images[0]} has no micrograph; name some")
    shared.make_folder(out)
    options, backbone = features, shared.load(features, report)
    excluded = exclusion_of(exclude, first_shape(files)) if exclude else None

    def look(path: Path) -> Seen:
        from napari_hrdv2.core.checks import filled, grey_if_equal, with_missing
        from napari_hrdv2.core.features.compute import compute_features
        from napari_hrdv2.files import read_image

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

    room = KEPT_MEMORY * available_memory(choose_device(options.device))
    kept: dict[Path, Seen] = {}
    joint: list[Features] = []
    masks: list[Any] = []
    for path in files:
        seen = _, made, mask = look(path)
        room -= made.nbytes
        if room > 0:
            kept[path] = seen
        joint.append(made if room > 0 else StoredPixels(made, np.empty(0, int)))
        masks.append(mask)
    found = find_clusters(joint, count, exclusion=masks)
    colors = principal_colors(joint, exclusion=masks)
    table = {i: default_color(i) for i in range(1, len(found.model.bias) + 1)}

    results: list[dict[str, Any]] = []
    for job in jobs_for(files, out, ENDINGS):
        source, made, mask = kept[job.file] if job.file in kept else look(job.file)
        labels, picture = found.predict(made) + 1, colors.paint(made)
        if mask is not None:
            labels[mask], picture[mask] = 0, 0
        stem = job.target.with_suffix("")
        outputs = [job.target, Path(f"{stem}.png"), Path(f"{stem}_colors.png")]
        with atomic_paths(*outputs) as (tiff, preview, components):
            write_labels(tiff, labels, pixel_size=source.pixel_size, unit=source.unit)
            write_color_png(preview, labels, table)
            write_picture(components, picture)
        counts = np.bincount(labels.ravel(), minlength=1 + len(table))[1:]
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
    report.finish({"clusters": len(table), "images": results})
