"""One micrograph of many for ``apply``: here, or on the workers of a dask cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_hrdv2.core.classifier import PixelClassifier

from ._options import FeatureOptions
from ._report import EXPECTED, Report, explained
from ._work import check_outputs, featurise, load, with_picture, write_segmentation

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone


def segment_file(
    file: Path,
    target: Path,
    classifier: PixelClassifier,
    backbone: Backbone | JoinedBackbone,
    chosen: FeatureOptions,
    report: Report,
) -> dict[str, Any]:
    """Segment one file; what went wrong with it is returned, not raised."""
    from napari_hrdv2.core.scores import phase_fractions
    from napari_hrdv2.files import read_image

    start = time.perf_counter()
    try:
        check_outputs({"--out": with_picture(target)}, [file])
        source = read_image(file)
        features = featurise(source.data, backbone, chosen, report)
        segmentation = classifier.predict(features)
        outputs = write_segmentation(target, segmentation, classifier, source)
    except EXPECTED as error:
        text = explained(error)
        named = text if str(file) in text else f"{file}: {text}"
        return {"image": str(file), "error": named}
    fractions = phase_fractions(segmentation)
    return {
        "image": str(file),
        "phase_fractions": {str(i): share for i, share in fractions.items()},
        "seconds": round(time.perf_counter() - start, 3),
        "outputs": [str(path) for path in outputs],
    }


def segment_on_cluster(
    address: str,
    jobs: Sequence[tuple[Path, Path]],
    classifier: Path,
    chosen: FeatureOptions,
) -> Iterator[dict[str, Any]]:
    """Yield the results of the workers as they come; all see the same files."""
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise ImportError(
            "--scheduler: dask.distributed is not installed; install it with "
            'pip install "napari-hrdv2[distributed]"'
        ) from error
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"--scheduler: {address} cannot be reached: {explained(error)}"
        ) from error
    with client:
        futures = [
            client.submit(
                _segment_there,
                str(file.resolve()),
                str(target.resolve()),
                str(classifier.resolve()),
                chosen,
                pure=False,
            )
            for file, target in jobs
        ]
        shown = {
            future.key: (str(file), target)
            for future, (file, target) in zip(futures, jobs, strict=True)
        }
        for future in as_completed(futures, loop=client.loop):
            file, target = shown[future.key]
            if future.status != "finished":  # a worker died, or has no napari-hrdv2
                yield {"image": file, "error": f"{file}: {future.exception()}"}
                continue
            result = {**future.result(), "image": file}
            if "outputs" in result:
                result["outputs"] = [str(path) for path in with_picture(target)]
            yield result


def _segment_there(
    file: str, target: str, classifier: str, chosen: FeatureOptions
) -> dict[str, Any]:
    trained, backbone = _loaded(classifier, Path(classifier).stat().st_mtime_ns, chosen)
    quiet = Report(as_json=True)
    return segment_file(Path(file), Path(target), trained, backbone, chosen, quiet)


@lru_cache(maxsize=2)
def _loaded(
    classifier: str, changed: int, chosen: FeatureOptions
) -> tuple[PixelClassifier, Backbone | JoinedBackbone]:
    """Classifier and backbone, loaded once by each worker; `changed` is its time."""
    return PixelClassifier.load(classifier), load(chosen, Report(as_json=True))
