"""``evaluate``: how well scribbles alone segment micrographs of known truth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.core.features.options import FeatureOptions

from . import shared
from .shared import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEYS = {
    "id": str,
    "source": str,
    "image": str,
    "label": str,
    "classes": list,
    "scribbles": dict,
}
_KINDS = {str: "a text", list: "a list", dict: "an object"}


def evaluate(
    cases_dir: Annotated[Path, typer.Argument(help="A folder with a manifest.json.")],
    scribbles: Annotated[
        str, typer.Option(help="Which scribbles: a, b, lo or hi.", metavar="SET")
    ] = "a",
    *,
    features: FeatureOptions,
    as_json: Json = False,
) -> None:
    """Train on each case's scribbles alone and score all other pixels."""
    import numpy as np

    from napari_hrdv2.core.measure.scores import iou_per_class, mean_iou

    report = shared.Report(as_json)
    cases = _read_manifest(cases_dir, scribbles)
    backbone = shared.load(features, report)
    wide = max(len(case["id"]) for case in cases)
    results: list[dict[str, Any]] = []
    by_source: dict[str, list[float]] = {}
    for case in cases:
        image, truth, drawn = _read_case(cases_dir, case, scribbles)
        start = time.perf_counter()
        made, classifier = shared.train(image, drawn, backbone, features, report)
        segmentation = classifier.predict(made)
        seconds = time.perf_counter() - start
        classes, unseen = range(1, len(case["classes"]) + 1), drawn == 0
        scored = truth[unseen], segmentation[unseen], classes
        miou, ious = mean_iou(*scored), iou_per_class(*scored).tolist()
        shown = " ".join("  -  " if np.isnan(iou) else f"{iou:.3f}" for iou in ious)
        report.say(f"{case['id']:<{wide}}  {miou:.4f}  {seconds:6.2f} s  [{shown}]")
        about = {"id": case["id"], "miou": miou, "seconds": round(seconds, 3)}
        about["iou"] = [None if np.isnan(iou) else iou for iou in ious]
        results.append(about)
        by_source.setdefault(case["source"], []).append(miou)
    report.say()
    means = {source: mean(mious) for source, mious in by_source.items()}
    for source, miou in means.items():
        report.say(f"{source:<{wide}}  {miou:.4f}")
    overall = mean(result["miou"] for result in results)
    report.say(f"{f'mean of {len(results)} cases':<{wide}}  {overall:.4f}")
    report.finish(
        {"mean_miou": overall, "mean_miou_by_source": means, "cases": results}
    )


def _read_manifest(folder: Path, scribbles: str) -> list[dict[str, Any]]:
    """Read the cases and check that they are all there."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; give a folder of cases"
        )
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(cases, list) or not cases:
        raise ValueError(f"{path} is not a list of cases")
    for number, case in enumerate(cases, start=1):
        _check_case(case, f"{path}: case {number}", scribbles)
    return cases


def _check_case(case: Any, where: str, scribbles: str) -> None:
    if not isinstance(case, dict):
        raise ValueError(f"{where} is not an object with {', '.join(_KEYS)}")
    where = f"{where} ({case['id']})" if "id" in case else where
    missing = [key for key in _KEYS if key not in case]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    for key, kind in _KEYS.items():
        if not isinstance(case[key], kind):
            raise ValueError(f"{where}: {key} is {case[key]!r}, not {_KINDS[kind]}")
    if not case["classes"]:
        raise ValueError(f"{where}: classes is empty; two or more are needed")
    if scribbles not in case["scribbles"]:
        raise ValueError(
            f"--scribbles: {case['id']} has no set {scribbles!r}; it has "
            f"{', '.join(case['scribbles'])}"
        )
    if not isinstance(case["scribbles"][scribbles], str):
        raise ValueError(f"{where}: scribbles {scribbles!r} is not the name of a file")


def _read_case(
    folder: Path, case: dict[str, Any], scribbles: str
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return image, truth and scribbles; both have class k of the manifest as k + 1."""
    import numpy as np

    from napari_hrdv2.files import read_image, read_labels, size_text

    image = read_image(folder / case["image"]).data
    label, path = folder / case["label"], folder / case["scribbles"][scribbles]
    truth = read_labels(label).astype(np.int64) + 1
    if truth.shape != image.shape[:2]:
        raise ValueError(
            f"{case['id']}: {label} is {size_text(truth.shape)} and the image "
            f"{size_text(image.shape[:2])} (width × height); it must be this image's "
            "truth"
        )
    drawn = read_labels(path)
    shared.check_scribbles(drawn, image.shape, path)
    if not np.isin(truth[drawn == 0], range(1, len(case["classes"]) + 1)).any():
        raise ValueError(
            f"{case['id']}: {path} leaves no pixel of a known class without a "
            "scribble, so there is nothing to score"
        )
    return image, truth, drawn
