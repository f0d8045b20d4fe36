"""Features of volumes: slices along one or three axes, and means over neighbours."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from napari_hrdv2 import PixelClassifier, compute_features
from napari_hrdv2.core.backbones import load_backbone
from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.volumes import VolumeFeatures, volume_features
from napari_hrdv2.files.volumes import LazyVolume

SIZE = (6, 13, 20)


@pytest.fixture(scope="module")
def volume():
    random = np.random.default_rng(2)
    z, y, x = np.indices(SIZE)
    field = np.sin(z / 2) + np.cos(y / 4) + np.sin(x / 5) + random.normal(0, 0.5, SIZE)
    return np.clip(128 + 40 * field, 0, 255).astype(np.uint8)


def volume_of(array, planes="z", width=0.0):
    made = LazyVolume(Path("volume"), array, None, "zyxc"[: array.ndim])
    made.planes, made.width = planes, width
    return made


def computed(image, stop=None):
    return compute_features(image, load_backbone("filters"), value_range=(0, 255))


@cache
def _of_bytes(content, shape, dtype):
    return computed(np.frombuffer(content, dtype).reshape(shape).copy())


def remembered(image, stop=None):
    """Return the same for a slice that was there before, which costs most of a test."""
    return _of_bytes(image.tobytes(), image.shape, image.dtype)


def of_slices(volume, axis):
    """Return the features of all slices along an axis, (C, Z, Y, X)."""
    slices = [remembered(each).materialize() for each in np.moveaxis(volume, axis, 0)]
    return np.stack(slices, 1 + axis)


def slowly(volume, axes, width):
    """Return the features of all voxels, (C, Z, Y, X), the obvious way."""
    parts = []
    for axis in axes:
        own = of_slices(volume, axis)
        parts.append([own, np.zeros_like(own)])
        for i in range(volume.shape[axis]):
            total = 0
            for j in range(volume.shape[axis]):
                if abs(i - j) > np.ceil(2 * width):
                    continue
                weight = np.exp(-((i - j) ** 2) / (2 * width**2)) if width else 0
                total += weight
                target = np.moveaxis(parts[-1][1], 1 + axis, 0)
                target[i] += weight * np.moveaxis(own, 1 + axis, 0)[j]
            if width:
                target[i] /= total
    means = [sum(some) / len(axes) for some in zip(*parts, strict=True)]
    return np.concatenate(means if width else means[:1])


def of_all(features):
    rows, columns = np.indices(features.shape[1:]).reshape(2, -1)
    return features.sample(rows, columns).T


@pytest.mark.parametrize(
    ("planes", "axes", "width"),
    [("z", (0,), 0), ("z", (0,), 1.3), ("xyz", (0, 1, 2), 0), ("xyz", (0, 1, 2), 0.6)],
)
@pytest.mark.parametrize("has_colours", [False, True])
def test_samples_and_decisions_are_those_of_the_obvious_way(
    volume, planes, axes, width, has_colours
):
    if has_colours:
        volume = np.stack([volume, 255 - volume, np.roll(volume, 3, 2)], -1)
    wanted = slowly(volume, axes, width)
    features = VolumeFeatures(volume_of(volume, planes, width), remembered)
    assert features.shape == (len(wanted), SIZE[0] * SIZE[1], SIZE[2])
    found = of_all(features).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    random = np.random.default_rng(0)
    weight = random.normal(size=(3, len(wanted))).astype(np.float32)
    bias = np.array([0.5, -1, 2], np.float32)
    obvious = np.einsum("kc,czyx->kzyx", weight, wanted) + bias[:, None, None, None]
    total = features.project(weight, bias)
    np.testing.assert_allclose(total.reshape(obvious.shape), obvious, atol=2e-3)
    part = slice(SIZE[1] * 3 + 2, SIZE[1] * 4 - 1), slice(5, 18)
    again = features.project(2 * weight, bias, region=part)
    twice = 2 * total[:, *part] - bias[:, None, None]
    np.testing.assert_allclose(again, twice, atol=1e-4)


@pytest.mark.parametrize(("planes", "most"), [("z", 6), ("xyz", 30)])
def test_planes_gone_on_with_are_those_of_one_run(volume, planes, most, tmp_path):
    features = VolumeFeatures(volume_of(volume, planes, 1.0), remembered)
    weight = np.random.default_rng(1).normal(size=(2, features.shape[0]))
    model = weight, np.zeros(2)
    whole, calls, found = features.project(*model), [0], []

    def ending(image, stop=None):
        calls[0] -= 1
        if calls[0] < 0:
            raise KeyboardInterrupt
        return remembered(image)

    planes_of = [slice(z * SIZE[1], (z + 1) * SIZE[1]) for z in (1, 4, 5)]
    for make in (ending, ending, remembered):
        calls[0] = most
        features = VolumeFeatures(volume_of(volume, planes, 1.0), make)
        features.folder = tmp_path / "slices"
        found.append(0)
        with suppress(KeyboardInterrupt):
            for rows in planes_of:
                part = features.project(*model, region=(rows, slice(None)))
                np.testing.assert_array_equal(part, whole[:, rows])
                found[-1] += 1
    assert found[0] < found[-1] == 3


def test_context_of_one_plane_is_the_plane_itself(volume):
    features = VolumeFeatures(volume_of(volume[:1], width=2.0), computed)
    own, around = np.split(of_all(features), 2)
    np.testing.assert_array_equal(own, around)


@pytest.mark.parametrize("planes", ["z", "xyz"])
def test_a_classifier_trains_on_strokes_of_any_orientation(volume, planes):
    labels = np.zeros(SIZE, np.uint8)
    labels[2, 3, :13], labels[1:6, 10, 17] = 1, 2
    features = VolumeFeatures(volume_of(volume, planes), remembered)
    classifier = PixelClassifier().fit(features, labels.reshape(-1, SIZE[2]))
    assert classifier.part_options[0].planes == planes
    found = classifier.predict(features).reshape(SIZE)
    assert (found[labels != 0] == labels[labels != 0]).mean() > 0.9
    background = features.background_pixels()
    assert len(set(background.tolist())) == len(background) > 400
    used = np.unique(background // (SIZE[1] * SIZE[2]))
    assert len(used) == (5 if planes == "z" else SIZE[0])


def test_slices_have_the_grey_levels_of_the_volume(volume):
    embedded = load_backbone("embedded")
    features = volume_features(volume_of(volume), embedded)
    levels = float(volume.mean()), float(volume.std())
    rows = slice(SIZE[1], 2 * SIZE[1])
    model = np.random.default_rng(1).normal(size=(2, features.shape[0])), np.zeros(2)
    alone = compute_features(volume[1], embedded, levels=levels, value_range=(0, 255))
    found = features.project(*model, region=(rows, slice(None)))
    np.testing.assert_allclose(found, alone.project(*model), atol=1e-3)


@pytest.mark.parametrize("name", ["embedded", "filters"])
def test_channels_of_a_volume_have_grey_levels_of_their_own(volume, name):
    volume = volume[:4, :8, :12]
    other = np.roll(volume, 5, 1).astype(np.uint16) * 200
    both = np.stack([volume.astype(np.uint16), other], -1)
    features = volume_features(
        volume_of(both, "xyz"), load_backbone(name), channels="A,B"
    )
    alone = [
        volume_features(volume_of(both[..., i], "xyz"), load_backbone(name))
        for i in (0, 1)
    ]
    rows, columns = np.indices(features.shape[1:]).reshape(2, -1)[:, ::11]
    wanted = np.concatenate([one.sample(rows, columns) for one in alone], 1)
    np.testing.assert_allclose(features.sample(rows, columns), wanted, atol=1e-5)
    told = [(part.channel, part.planes) for part in features.part_options]
    assert told == [("A", "xyz"), ("B", "xyz")]


def test_missing_voxels_of_colours_and_channels_have_their_median(volume):
    other = np.roll(volume, 5, 1)
    both = np.stack([volume, other, 255.0 - volume], -1).astype(np.float32)
    holes, model = both.copy(), None
    holes[2, 3:6, 4:9], holes[4, ..., 1] = np.nan, np.nan
    for channels in ("", "A,B,C"):
        medians = [
            np.nanmedian(holes[..., i][np.isfinite(holes).all(-1)]) for i in range(3)
        ]
        if channels:
            medians = [np.nanmedian(holes[..., i]) for i in range(3)]
        given = np.where(np.isfinite(holes), holes, np.float32(medians))
        found, wanted = (
            volume_features(volume_of(one), load_backbone("filters"), channels=channels)
            for one in (holes, given)
        )
        model = np.random.default_rng(1).normal(size=(2, found.shape[0])), np.zeros(2)
        np.testing.assert_allclose(
            found.project(*model), wanted.project(*model), atol=1e-3
        )


def test_slices_without_contrast_or_pixels_are_no_obstacle_and_cancel_is_heard(volume):
    empty = volume.astype(np.float32)
    empty[-1], empty[-2] = 7, np.nan
    features = volume_features(volume_of(empty), load_backbone("filters"))
    model = np.ones((1, features.shape[0])), np.zeros(1)
    rows = slice(4 * SIZE[1], 6 * SIZE[1])
    assert np.isfinite(features.project(*model, region=(rows, slice(None)))).all()
    with pytest.raises(Cancelled):
        features.project(*model, should_stop=lambda: True)
    with pytest.raises(ValueError, match="do not fit"):
        features.materialize()


def test_a_context_that_does_not_fit_into_memory_is_refused(volume, monkeypatch):
    one = SIZE[1] * SIZE[2] * 8  # bytes of a plane and what it gives to others
    where = "napari_hrdv2.core.features.volumes.available_memory"
    for free, classes in ((5 * one - 1, 2), (10 * one - 1, 3)):
        monkeypatch.setattr(where, lambda device, free=free: free)
        with pytest.raises(MemoryError, match=r"planes: z\+1 keeps .* narrower"):
            made = VolumeFeatures(volume_of(volume, "z+1", 1.0), computed)
            weight = np.ones((classes, made.shape[0]), np.float32)
            made.argmax(weight, np.zeros(classes, np.float32), range(classes))
    VolumeFeatures(volume_of(volume, "z+1", 1.0), computed)
