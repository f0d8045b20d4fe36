"""Many files or planes: a fault of one is not of all."""

import numpy as np
import pytest
import tifffile

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.session import PipelineInput, TaskContext, compute
from napari_hrdv2.session import batch as module
from session.stack_planes import planes_of


@pytest.fixture
def paths(tmp_path, image):
    for name in "abc":
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    return [str(tmp_path / f"{name}.tif") for name in "abc"]


@pytest.mark.parametrize("error", [IndexError("7"), RuntimeError("codec"), KeyError(1)])
def test_whatever_one_file_raises_the_others_are_opened(paths, monkeypatch, error):
    from napari_hrdv2.files import read_image

    def read(path, *channels):
        if path == paths[1]:
            raise error
        return read_image(path, *channels)

    monkeypatch.setattr("napari_hrdv2.files.read_image", read)
    opened = []
    context = TaskContext(partial=opened.append)
    (problem,) = module.open_images(context, paths=paths)
    assert [one.path for one in opened] == [paths[0], paths[2]]
    assert problem.startswith(f"{paths[1]}: it cannot be done: {type(error).__name__}")


def test_whatever_one_plane_raises_the_others_are_segmented(trained, image):
    def read(number):
        if number == 1:
            raise RuntimeError("Zstd decompression error")
        return image

    request = PipelineInput(
        planes_of(read, image, 3),
        classifier=trained.classifier,
        fingerprint=trained.classifier_fingerprint,
        options=FeatureOptions.of(trained.classifier.part_options),
    )
    errors = [one.error for one in compute(request).images]
    assert [bool(error) for error in errors] == [False, True, False]
    assert "plane 1: it cannot be done: RuntimeError: Zstd" in errors[1]


def test_a_run_can_still_be_cancelled_within_a_file(
    trained, paths, tmp_path, monkeypatch
):
    from pathlib import Path

    def read(path, *channels):
        raise Cancelled

    monkeypatch.setattr("napari_hrdv2.files.open_image", read)
    jobs = module.jobs_for([Path(path) for path in paths], tmp_path)
    request = module.ApplyRequest(jobs, tmp_path / "t.csv", trained.classifier)
    with pytest.raises(Cancelled):
        compute(request)
    assert np.all([not job.target.exists() for job in jobs])
