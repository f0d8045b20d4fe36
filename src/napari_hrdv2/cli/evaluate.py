"""``evaluate``: how well strokes alone segment micrographs whose truth is known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_hrdv2.cli import options as options
from napari_hrdv2.cli.report import Report

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.features.options import FeatureOptions

_KEYS = {
    "id": str,
    "source": str,
    "image": str,
    "label": str,
    "classes": list,
    "scribbles": dict,
}


def evaluate(
    cases_dir: Annotated[Path, typer.Argument(help="A folder with a manifest.json.")],
    scribbles: Annotated[
        str, typer.Option(help="Which strokes: a, b, lo or hi.", metavar="SET")
    ] = "a",
    backbone: options.BackboneName = "embedded",
    transforms: options.Transforms = "auto",
    stride: options.Stride = None,
    interpolation: options.Interpolation = "bilinear",
    debias: options.Debias = "none",
    device: options.Device = "auto",
    weights: options.Weights = None,
    as_json: options.Json = False,
) -> None:
    """Train on each case's strokes alone and score all pixels without a stroke."""
    from napari_hrdv2.cli.features import load
    from napari_hrdv2.core.features.options import FeatureOptions

    report = Report(as_json)
    cases = read_manifest(cases_dir, scribbles)
    chosen = FeatureOptions(
        backbone,
        transforms,
        stride,
        device,
        weights,
        interpolation=interpolation,
        debias=debias,
    )
    loaded = load(chosen, report)
    wide = max(len(case["id"]) for case in cases)
    results = []
    for case in cases:
        result = _score(cases_dir, case, scribbles, loaded, chosen, report)
        results.append(result)
        ious = " ".join(f"{x:.3f}" if x is not None else "  -  " for x in result["iou"])
        report.say(
            f"{case['id']:<{wide}}  {result['miou']:.4f}  {result['seconds']:6.2f} s  "
            f"[{ious}]"
        )
    by_source = _by_source(cases, results)
    report.say()
    for source, miou in by_source.items():
        report.say(f"{source:<{wide}}  {miou:.4f}")
    overall = mean(result["miou"] for result in results)
    report.say(f"{f'mean of {len(results)} cases':<{wide}}  {overall:.4f}")
    report.finish(
        {"mean_miou": overall, "mean_miou_by_source": by_source, "cases": results}
    )


def read_manifest(cases_dir: Path, scribbles: str) -> list[dict[str, Any]]:
    """Read the cases and check that they are all there."""
    path = cases_dir / "manifest.json"
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
    wrong = [key for key, kind in _KEYS.items() if not isinstance(case[key], kind)]
    if wrong:
        kind = {str: "a text", list: "a list", dict: "an object"}[_KEYS[wrong[0]]]
        raise ValueError(f"{where}: {wrong[0]} is {case[wrong[0]]!r}, not {kind}")
    if not case["classes"]:
        raise ValueError(f"{where}: classes is empty; two or more are needed")
    if scribbles not in case["scribbles"]:
        raise ValueError(
            f"--scribbles: {case['id']} has no set {scribbles!r}; it has "
            f"{', '.join(case['scribbles'])}"
        )
    if not isinstance(case["scribbles"][scribbles], str):
        raise ValueError(f"{where}: scribbles {scribbles!r} is not the name of a file")


def _score(
    cases_dir: Path,
    case: dict[str, Any],
    scribbles: str,
    backbone: Backbone | JoinedBackbone,
    chosen: FeatureOptions,
    report: Report,
) -> dict[str, Any]:
    import numpy as np

    from napari_hrdv2.cli.features import check_scribbles, featurise, size
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.measure.scores import iou_per_class
    from napari_hrdv2.files import read_image, read_labels

    image = read_image(cases_dir / case["image"]).data
    label = cases_dir / case["label"]
    truth = read_labels(label).astype(np.int64) + 1
    if truth.shape != image.shape[:2]:
        raise ValueError(
            f"{case['id']}: {label} is {size(truth.shape)} and the image "
            f"{size(image.shape)} (width × height); it must be this image's truth"
        )
    path = cases_dir / case["scribbles"][scribbles]
    strokes = read_labels(path)
    check_scribbles(strokes, image, str(path))
    # Strokes hold class k as k + 1, because 0 means no stroke.
    classes = range(1, len(case["classes"]) + 1)
    unseen = strokes == 0
    if not np.isin(truth[unseen], classes).any():
        raise ValueError(
            f"{case['id']}: {path} leaves no pixel of a known class without a stroke, "
            "so there is nothing to score"
        )
    start = time.perf_counter()
    features = featurise(image, backbone, chosen, report)
    segmentation = PixelClassifier().fit(features, strokes).predict(features)
    seconds = time.perf_counter() - start
    scores = iou_per_class(truth[unseen], segmentation[unseen], classes)
    return {
        "id": case["id"],
        "miou": float(np.nanmean(scores)),
        "iou": [None if np.isnan(score) else float(score) for score in scores],
        "seconds": round(seconds, 3),
    }


def _by_source(
    cases: Iterable[dict[str, Any]], results: Iterable[dict[str, Any]]
) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for case, result in zip(cases, results, strict=True):
        groups.setdefault(case["source"], []).append(result["miou"])
    return {source: mean(mious) for source, mious in groups.items()}
