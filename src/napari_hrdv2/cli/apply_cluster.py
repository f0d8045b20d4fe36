"""``apply`` on the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.errors import explained
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session.batch.apply import Applied, Job, segment_file

if TYPE_CHECKING:
    from napari_hrdv2.core.backbones import Backbone, JoinedBackbone
    from napari_hrdv2.core.postprocess.refinement import Refinement


def segment_on_cluster(
    address: str,
    jobs: Sequence[Job],
    classifier: Path,
    chosen: FeatureOptions,
    refinement: Refinement,
) -> Iterator[Applied]:
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
                Job(job.file.resolve(), job.target.resolve()),
                str(classifier.resolve()),
                chosen,
                refinement,
                pure=False,
            )
            for job in jobs
        ]
        asked = {future.key: job for future, job in zip(futures, jobs, strict=True)}
        for future in as_completed(futures, loop=client.loop):
            job = asked[future.key]
            if future.status != "finished":  # a worker died, or has no napari-hrdv2
                yield Applied(job, error=f"{job.file}: {future.exception()}")
                continue
            result = future.result()
            names = tuple(job.target.with_name(path.name) for path in result.outputs)
            yield replace(result, job=job, outputs=names)


def _segment_there(
    job: Job, classifier: str, chosen: FeatureOptions, refinement: Refinement
) -> Applied:
    changed = Path(classifier).stat().st_mtime_ns
    trained, backbone = _loaded(classifier, changed, chosen)
    return segment_file(job, trained, backbone, chosen, refinement=refinement)


@lru_cache(maxsize=2)
def _loaded(
    classifier: str, changed: int, chosen: FeatureOptions
) -> tuple[PixelClassifier, Backbone | JoinedBackbone]:
    """Classifier and backbone, loaded once by each worker; `changed` is its time."""
    return PixelClassifier.load(classifier), chosen.load()
