"""Segmentations that go block by block: as in memory, and gone on with after an end."""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_hrdv2 import PixelClassifier, compute_features
from napari_hrdv2.core.backbones import load_backbone
from napari_hrdv2.core.checks import filled, with_missing
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure import phase_fractions_with_error
from napari_hrdv2.core.postprocess.refinement import Refinement, clean, refine
from napari_hrdv2.files import ImageFile, open_image, read_ome_zarr
from napari_hrdv2.files.layers import read_layers
from napari_hrdv2.files.volumes import LazyVolume
from napari_hrdv2.session import Session, TaskContext, compute
from napari_hrdv2.session.batch import streaming
from napari_hrdv2.session.batch.streaming import stream_labels
from napari_hrdv2.session.batch.volumes import volume_request
from napari_hrdv2.session.features import FeatureSource
from napari_hrdv2.session.planes import PlaneKey

SHAPE = (131, 187)
OPTIONS = FeatureOptions("filters")


class InBlocks:
    """Features with small blocks, so that a small image has many of them."""

    block = 32

    def __init__(self, features: Any) -> None:
        self._features = features
        self.read: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._features, name)

    def argmax(self, *arguments: Any, **options: Any) -> Any:
        self.read.append(options["region"])
        return self._features.argmax(*arguments, **options)

    def project(self, *arguments: Any, **options: Any) -> Any:
        self.read.append(options["region"])
        return self._features.project(*arguments, **options)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    random = np.random.default_rng(3)
    rows, columns = np.indices(SHAPE)
    field = np.sin(rows / 9) + np.cos(columns / 7) + random.normal(0, 0.7, SHAPE)
    return np.clip(128 + 50 * field, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def features(image: np.ndarray) -> InBlocks:
    return InBlocks(compute_features(image, load_backbone("filters")))


@pytest.fixture(scope="module")
def classifier(image: np.ndarray, features: InBlocks) -> PixelClassifier:
    labels = np.zeros(SHAPE, np.uint8)
    labels[::9, ::7] = np.where(image[::9, ::7] > 128, 2, 1)
    return PixelClassifier().fit(features._features, labels)


def listing(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def streamed(
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    target: Path,
    **about: Any,
) -> streaming.Streamed:
    context = about.pop("context", TaskContext())
    file = ImageFile(image, 0.5, "µm")
    return stream_labels(file, features, classifier, target, context, **about)


@pytest.mark.parametrize(
    "refinement",
    [None, Refinement(min_object=12), Refinement(min_object=5, fill_holes=40)],
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_labels_and_fractions_are_those_in_memory(
    tmp_path: Path,
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    refinement: Refinement | None,
    is_cut: bool,
) -> None:
    exclusion = np.zeros(SHAPE, bool)
    exclusion[100:, 20:90] = is_cut
    wanted = classifier.predict(features._features)
    wanted[exclusion] = 0
    if refinement is not None:
        limits = refinement.min_object, refinement.fill_holes
        wanted = clean(wanted, *limits, exclusion=exclusion)
    found = streamed(
        image,
        features,
        classifier,
        tmp_path / "a.zarr",
        exclusion=exclusion if is_cut else None,
        refinement=refinement,
        colors={1: "#112233", 2: "#445566"},
    )
    read = read_ome_zarr(tmp_path / "a.zarr")
    assert np.array_equal(read.labels, wanted)
    assert read.classes.colors == {1: "#112233", 2: "#445566"}
    assert found.fractions == phase_fractions_with_error(wanted, [1, 2])
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


SMOOTHED = (
    Refinement(smoothing="guided", radius=3, strength=0.9),
    Refinement(smoothing="crf", radius=5, min_object=9, fill_holes=30),
)


@pytest.mark.parametrize("refinement", SMOOTHED)
@pytest.mark.parametrize("kind", ["grey", "excluded", "colour", "missing", "constant"])
def test_smoothed_labels_are_those_in_memory(
    tmp_path: Path,
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    refinement: Refinement,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_hrdv2.files.label_store.PLANE_CHUNK", 24)
    monkeypatch.setattr("napari_hrdv2.core.postprocess.guides.LEVELS", 5000)
    exclusion, guide = None, image
    if kind == "excluded":
        exclusion = np.zeros(SHAPE, bool)
        exclusion[100:, 20:90] = True
        guide = np.where(exclusion, 255, image).astype(np.uint8)
        # The median of what is left out is of the sample, too.
        monkeypatch.setattr("napari_hrdv2.core.postprocess.guides.LEVELS", 9e9)
    elif kind == "colour":
        guide = np.dstack([image, np.roll(image, 3, 1), 255 - image])
    elif kind == "missing":
        guide = image.astype(np.float32)
        guide[40:70, 30:36] = np.nan
        monkeypatch.setattr("napari_hrdv2.core.postprocess.guides.LEVELS", 9e9)
    elif kind == "constant":
        guide = np.full_like(image, 7)
    mask = with_missing(exclusion, guide)
    probabilities = classifier.predict_proba(features._features)
    ids = classifier.classes
    wanted = refine(probabilities, filled(guide), ids, refinement, exclusion=mask)
    assert not np.array_equal(wanted, classifier.predict(features._features))
    found = streamed(
        guide,
        features,
        classifier,
        tmp_path / "a.zarr",
        exclusion=exclusion,
        refinement=refinement,
    )
    assert np.array_equal(read_ome_zarr(tmp_path / "a.zarr").labels, wanted)
    assert found.fractions == phase_fractions_with_error(wanted, [1, 2])


def test_probabilities_that_the_disk_does_not_hold_are_refused_at_once(
    tmp_path: Path,
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"probabilities need up to 0\.0 GB; choose"):
        streamed(
            image, features, classifier, tmp_path / "a.zarr", refinement=SMOOTHED[0]
        )


def test_smaller_levels_are_every_second_pixel(
    tmp_path: Path,
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_hrdv2.files.label_store.SMALLEST_LEVEL", 50)
    streamed(image, features, classifier, tmp_path / "a.zarr")
    group: Any = zarr.open_group(tmp_path / "a.zarr", mode="r")
    scales = group.attrs["multiscales"][0]["datasets"]
    assert [one["path"] for one in scales] == ["0", "1", "2"]
    assert scales[2]["coordinateTransformations"][0]["scale"] == [2.0, 2.0]
    assert np.array_equal(group["1"][:], group["0"][::2, ::2])
    assert np.array_equal(group["2"][:], group["0"][::4, ::4])
    ((levels, about, kind),) = read_layers(str(tmp_path / "a.zarr"))
    assert (kind, about["multiscale"], about["scale"]) == ("labels", True, (0.5, 0.5))
    layers = pytest.importorskip("napari.layers")
    layer = layers.Labels(levels, **about)
    assert layer.multiscale
    assert layer.get_value((10, 20), world=True) is not None


@pytest.mark.parametrize("refinement", [None, Refinement(min_object=12), SMOOTHED[1]])
def test_what_was_cancelled_is_gone_on_with(
    tmp_path: Path,
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    refinement: Refinement | None,
) -> None:
    about = {"refinement": refinement}
    streamed(image, features, classifier, tmp_path / "whole.zarr", **about)
    features.read.clear()
    stop = TaskContext(should_stop=lambda: len(features.read) >= 7)
    target = tmp_path / "a" / "whole.zarr"
    target.parent.mkdir()
    with pytest.raises(Cancelled):
        streamed(image, features, classifier, target, context=stop, **about)
    assert not target.exists()
    found = streamed(image, features, classifier, target, **about)
    assert (found.was_there, found.blocks) == (6, 30)  # the seventh was broken off
    assert len(features.read) == 31
    assert listing(target) == listing(tmp_path / "whole.zarr")


def test_another_classifier_or_image_begins_anew(
    tmp_path: Path, image: np.ndarray, features: InBlocks, classifier: PixelClassifier
) -> None:
    other = PixelClassifier.__new__(PixelClassifier)
    other.__dict__.update(classifier.__dict__, bias=classifier.bias + 0.5)
    darker = image.copy()
    darker[0, 0] ^= 1
    for again, given in ((other, image), (classifier, darker)):
        features.read.clear()
        stop = TaskContext(should_stop=lambda: len(features.read) >= 7)
        with pytest.raises(Cancelled):
            streamed(image, features, classifier, tmp_path / "a.zarr", context=stop)
        found = streamed(given, features, again, tmp_path / "a.zarr")
        assert found.was_there == 0
        labels = read_ome_zarr(tmp_path / "a.zarr").labels
        assert np.array_equal(labels, again.predict(features._features))


def test_a_block_that_was_damaged_is_done_again(
    tmp_path: Path, image: np.ndarray, features: InBlocks, classifier: PixelClassifier
) -> None:
    features.read.clear()
    stop = TaskContext(should_stop=lambda: len(features.read) >= 7)
    with pytest.raises(Cancelled):
        streamed(image, features, classifier, tmp_path / "a.zarr", context=stop)
    part = tmp_path / "a.zarr.unfinished" / "labels.zarr"
    zarr.open_group(part, mode="r+")["0"][0:32, 32:64] = 1
    with open(tmp_path / "a.zarr.unfinished" / "done.txt", "a") as file:
        file.write("\n96 9")  # broken off
    found = streamed(image, features, classifier, tmp_path / "a.zarr")
    assert found.was_there == 5
    labels = read_ome_zarr(tmp_path / "a.zarr").labels
    assert np.array_equal(labels, classifier.predict(features._features))


def test_what_is_there_already_is_not_done_again(
    tmp_path: Path, image: np.ndarray, features: InBlocks, classifier: PixelClassifier
) -> None:
    about = {"refinement": Refinement(min_object=12)}
    first = streamed(image, features, classifier, tmp_path / "a.zarr", **about)
    whole = listing(tmp_path / "a.zarr")
    features.read.clear()
    again = streamed(image, features, classifier, tmp_path / "a.zarr", **about)
    assert (again.was_there, features.read) == (30, [])
    assert again.fractions == first.fractions
    assert listing(tmp_path / "a.zarr") == whole
    other = streamed(image, features, classifier, tmp_path / "a.zarr")
    assert other.was_there == 0


def test_a_finished_store_that_was_changed_is_done_anew(
    tmp_path: Path, image: np.ndarray, features: InBlocks, classifier: PixelClassifier
) -> None:
    first = streamed(image, features, classifier, tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr", mode="r+")["0"][0:32, 32:64] = 1
    again = streamed(image, features, classifier, tmp_path / "a.zarr")
    assert again.was_there == 0
    assert again.fractions == first.fractions
    labels = read_ome_zarr(tmp_path / "a.zarr").labels
    assert np.array_equal(labels, classifier.predict(features._features))


def test_what_another_version_made_is_done_anew(
    tmp_path: Path,
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streamed(image, features, classifier, tmp_path / "a.zarr")
    monkeypatch.setattr("napari_hrdv2.files.label_store.REVISION", 0)
    again = streamed(image, features, classifier, tmp_path / "a.zarr")
    assert again.was_there == 0


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", ["none", "crf"])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    tmp_path: Path,
    image: np.ndarray,
    features: InBlocks,
    classifier: PixelClassifier,
    smoothing: str,
) -> None:
    about = {"refinement": Refinement(smoothing, min_object=12, fill_holes=30)}
    (tmp_path / "w").mkdir()
    streamed(image, features, classifier, tmp_path / "w" / "x.zarr", **about)
    wanted, random = listing(tmp_path / "w" / "x.zarr"), np.random.default_rng(0)
    start = time.monotonic()  # a whole run with all features at hand, as after a fork
    streamed(image, features, classifier, tmp_path / "again.zarr", **about)
    longest = time.monotonic() - start
    target, kills = tmp_path / "x.zarr", 0
    while not target.exists():
        child = os.fork()
        if child == 0:
            try:
                streamed(image, features, classifier, target, **about)
            finally:
                os._exit(0)
        select.select([], [], [], random.uniform(0, min(kills + 1, 4) * 0.3 * longest))
        os.kill(child, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert kills < 200
    assert kills > 1
    assert listing(target) == wanted


def test_a_folder_of_other_things_is_not_replaced(
    tmp_path: Path, image: np.ndarray, features: InBlocks, classifier: PixelClassifier
) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other things in it"):
        streamed(image, features, classifier, tmp_path / "a.zarr")


def test_an_image_without_colours_is_grey_whatever_its_bands(
    tmp_path: Path, image: np.ndarray
) -> None:
    grey = zarr.create_array(tmp_path / "g.zarr", data=np.dstack([image] * 3))
    assert grey.shape == (*SHAPE, 3)
    from napari_hrdv2.files import open_image

    found = streaming.lazily_grey(open_image(tmp_path / "g.zarr").data)
    assert np.array_equal(found[3:77, 9:], image[3:77, 9:])


def test_an_image_by_blocks_is_read_as_in_memory(image: np.ndarray) -> None:
    source = FeatureSource(OPTIONS, load_backbone("filters"))
    labels = np.zeros(SHAPE, np.uint8)
    labels[::9, ::7] = np.where(image[::9, ::7] > 128, 2, 1)
    whole = compute_features(image, source.backbone)
    classifier = PixelClassifier().fit(whole, labels)
    read = streaming.read_by_blocks(image, source, classifier, TaskContext())
    assert read.classifier is classifier
    differing = read.predict() != classifier.predict(whole)
    assert differing.mean() <= 1e-4


def test_particles_of_a_volume_need_more_memory_than_cleaning(monkeypatch) -> None:
    volume = LazyVolume(Path("volume"), np.zeros((2, 5, 10), np.uint8), None)
    monkeypatch.setattr(streaming, "available_memory", lambda device: 99 * 100)
    streaming.check_volume(volume, Refinement(min_object=3))
    with pytest.raises(MemoryError, match="particles: of this volume they need"):
        streaming.check_volume(volume, None, particles=True)


def test_another_pixel_size_makes_another_store(
    tmp_path: Path, image: np.ndarray, features: InBlocks, classifier: PixelClassifier
) -> None:
    target = tmp_path / "x.zarr"
    for side, was_there in ((0.5, False), (0.5, True), (0.25, False), (0.25, True)):
        file = ImageFile(image, side, "µm")
        done = stream_labels(file, features, classifier, target)
        assert done.was_there == done.blocks * was_there
        assert open_image(target).pixel_size == side


def test_each_plane_of_a_stack_leaves_out_its_own_mask(tmp_path):
    random = np.random.default_rng(0)
    stack = random.normal(100, 5, (4, 24, 28)) + 80 * (np.arange(28) > 13)
    session, labels = Session(), np.zeros((24, 28), np.uint8)
    session.configure(backbone="filters")
    labels[4, 2:9], labels[4, 18:25] = 1, 2
    masks = {
        z: np.arange(24)[:, None] + np.zeros((24, 28)) > 20 - 4 * z for z in (0, 2)
    }
    for z in (2, 1, 0):
        key = PlaneKey("stack", (z,))
        session.set_image(stack[z], key)
        session.set_exclusion(masks.get(z))
    session.set_scribbles(labels)
    volume = LazyVolume(tmp_path / "stack.tif", stack, None)
    target = tmp_path / "out.zarr"
    compute(volume_request(session, volume, target))
    found = np.asarray(zarr.open_group(target, mode="r")["0"])
    nothing = np.zeros((24, 28), bool)
    # What is known of no plane is as on the one that is shown.
    wanted = [masks[0], nothing, masks[2], masks[0]]
    assert np.array_equal(found == 0, wanted)
