"""Features are computed as defined, whatever the batch, and can be stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import napari_hrdv2 as hr
from estimates import estimate
from napari_hrdv2.core.backbones import JoinedBackbone
from napari_hrdv2.core.features.compute import Run


class MeanOfPatches:
    """A backbone of which every token can be told by hand: patch mean and corner."""

    name, channels, patch_size, equivariant = "mean", 2, 4, False
    default_transforms, absolute_levels, activations = "shift:1,2", True, 14
    device, dtype, weights_hash, steps = torch.device("cpu"), torch.float32, "", 3
    context_cell = 0
    fails_above = 99

    def __init__(self):
        self.batches = []

    def channels_for(self, image_channels):
        return 2

    def to(self, device):
        self.device = torch.device(device)
        return self

    def channel_weights_for(self, image_channels):
        return None

    def tokens(self, images, *, stride, tick=None):
        self.batches.append(len(images))
        if len(images) > self.fails_above:
            raise torch.OutOfMemoryError("CUDA out of memory")
        patches = images[:, 0].unfold(1, 4, stride).unfold(2, 4, stride)
        for _ in range(self.steps):
            tick()
        return torch.stack([patches.mean((-2, -1)), patches[..., 0, 0]], -1)


IMAGE = np.random.default_rng(0).random((13, 18))


def test_parts_that_are_joined_may_have_transforms_of_their_own(monkeypatch):
    parts = MeanOfPatches(), MeanOfPatches()
    parts[1].default_transforms = "flip"
    joined = JoinedBackbone(parts)
    by_word, named = (
        hr.compute_features(IMAGE, joined, chosen)
        for chosen in ("auto", "shift:1,2+flip")
    )
    assert [one.transforms for one in named.part_options] == ["shift:1,2", "flip"]
    assert named.part_options == by_word.part_options
    np.testing.assert_array_equal(named.materialize(), by_word.materialize())
    monkeypatch.setattr(MeanOfPatches, "default_transforms", "identity")
    again = hr.compute_features(IMAGE, joined, "shift:1,2+flip")
    np.testing.assert_array_equal(named.materialize(), again.materialize())
    with pytest.raises(ValueError, match="has 3 sets for 2 backbones"):
        hr.compute_features(IMAGE, joined, "flip+flip+flip")


def test_tokens_are_those_of_the_transformed_and_padded_image():
    features = hr.compute_features(IMAGE, MeanOfPatches(), "shift:1")
    padded = np.pad(IMAGE, ((0, 3), (0, 2)), mode="reflect").astype(np.float32)
    shifts = [copy.shift for copy in features.shifts.copies]
    assert features.tokens.shape == (9, 4, 5, 2)
    for tokens, shift in zip(features.tokens, shifts, strict=True):
        rolled = np.roll(padded, shift, (0, 1)).reshape(4, 4, 5, 4)
        np.testing.assert_allclose(tokens[..., 0], rolled.mean((1, 3)), atol=1e-6)


@pytest.mark.parametrize("spec", ["shift:1*flip", "rotate", "lattice:2*rotate*flip"])
@pytest.mark.parametrize("stride", [4, 3])
def test_the_batch_size_does_not_matter(spec, stride):
    one, many = (
        hr.compute_features(IMAGE, MeanOfPatches(), spec, stride, batch_size=size)
        for size in (1, 5)
    )
    np.testing.assert_allclose(one.materialize(), many.materialize(), atol=1e-6)


def test_symmetric_copies_average_to_a_symmetric_map():
    symmetric = IMAGE[:12, :12] + IMAGE[:12, :12].T
    features = hr.compute_features(symmetric / 2, MeanOfPatches(), "rotate*flip")
    dense = features.materialize()
    np.testing.assert_allclose(dense, dense.transpose(0, 2, 1), atol=1e-6)


def test_running_out_of_memory_makes_batches_smaller():
    backbone = MeanOfPatches()
    backbone.fails_above = 2
    features = hr.compute_features(IMAGE, backbone, "shift:1", batch_size=6)
    assert backbone.batches == [6, 3, 1, *[1] * 8]
    expected = hr.compute_features(IMAGE, MeanOfPatches(), "shift:1")
    np.testing.assert_array_equal(features.materialize(), expected.materialize())


def test_running_out_of_memory_with_one_image_is_said():
    backbone = MeanOfPatches()
    backbone.fails_above = 0
    with pytest.raises(MemoryError, match="image: the memory ran out"):
        hr.compute_features(IMAGE, backbone, "shift:1")


def test_a_device_without_memory_hands_over_to_the_cpu(monkeypatch):
    class OnSmallDevice(MeanOfPatches):
        def tokens(self, images, **options):
            if self.device.type == "meta":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().tokens(images, **options)

    backbone = OnSmallDevice().to("meta")
    monkeypatch.setattr(
        "napari_hrdv2.core.features.compute.Run._empty",
        lambda self, shape: torch.empty(shape),
    )
    with pytest.warns(UserWarning, match="meta has too little memory"):
        features = hr.compute_features(IMAGE, backbone, "shift:1")
    expected = hr.compute_features(IMAGE, MeanOfPatches(), "shift:1")
    np.testing.assert_array_equal(features.materialize(), expected.materialize())


def test_a_device_without_room_for_the_image_hands_over_to_the_cpu(monkeypatch):
    padded = Run._padded

    def refuse(run):
        if run.backbone.device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return padded(run)

    monkeypatch.setattr(Run, "_padded", refuse)
    monkeypatch.setattr(Run, "_empty", lambda self, shape: torch.empty(shape))
    backbone = MeanOfPatches().to("meta")
    with pytest.warns(UserWarning, match="meta has too little memory"):
        features = hr.compute_features(IMAGE, backbone, "shift:1", batch_size=4)
    expected = hr.compute_features(IMAGE, MeanOfPatches(), "shift:1")
    np.testing.assert_array_equal(features.materialize(), expected.materialize())


def test_progress_counts_every_step_once_and_ends_at_the_total():
    seen = []
    hr.compute_features(
        IMAGE, MeanOfPatches(), "shift:1", progress=lambda *at: seen.append(at)
    )
    assert seen == [(done, 27) for done in range(28)]


def test_stopping_ends_it_at_the_next_step():
    seen = []
    with pytest.raises(hr.Cancelled):
        hr.compute_features(
            IMAGE,
            MeanOfPatches(),
            "shift:1",
            progress=lambda done, total: seen.append(done),
            should_stop=lambda: len(seen) == 5,
        )
    assert seen == [0, 1, 2, 3, 4]


def test_joined_backbones_give_joined_features():
    joined = JoinedBackbone((MeanOfPatches(), hr.load_backbone("filters")))
    features = hr.compute_features(IMAGE, joined, "shift:1")
    filters = hr.compute_features(IMAGE, hr.load_backbone("filters"))
    assert features.shape == (2 + filters.shape[0], 13, 18)
    assert [part.backbone for part in features.part_options] == ["mean", "filters"]
    np.testing.assert_array_equal(features.materialize()[2:], filters.materialize())


def test_the_options_of_a_part_tell_how_the_features_were_made():
    features = hr.compute_features(
        IMAGE, MeanOfPatches(), "lattice:2", 2, boundary="reflect", value_range=(0, 2)
    )
    (part,) = features.part_options
    assert (part.backbone, part.transforms, part.stride) == (
        "mean",
        "lattice:2",
        2,
    )
    assert (part.boundary, part.value_range) == ("reflect", (0, 2))


def test_the_estimate_tells_passes_and_bytes():
    backbone = MeanOfPatches()
    told = estimate((13, 18), backbone, "shift:1*flip")
    features = hr.compute_features(IMAGE, backbone, "shift:1*flip")
    assert told.passes == sum(backbone.batches) == 36
    assert told.token_bytes == features.nbytes
    assert told.peak_bytes > told.token_bytes


def test_an_image_that_would_not_fit_is_refused_before_it_starts(monkeypatch):
    backbone = MeanOfPatches()
    monkeypatch.setattr(
        "napari_hrdv2.core.features.memory.available_memory", lambda device: 99
    )
    with pytest.raises(MemoryError, match="features of 13 × 18 px need about"):
        hr.compute_features(IMAGE, backbone)
    assert backbone.batches == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 5}, "stride: 5 does not fit mean; give whole pixels from 1 to 4"),
        ({"stride": 2.5}, "stride: 2.5 does not fit"),
        ({"transforms": "shift"}, "transforms: 'shift'"),
        ({"boundary": "zero"}, "boundary: 'zero' is unknown; use periodic or reflect"),
        ({"interpolation": "x"}, "interpolation: 'x' is unknown"),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_arguments_that_make_no_sense_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hr.compute_features(IMAGE, MeanOfPatches(), **options)


def test_a_name_is_not_a_backbone():
    with pytest.raises(TypeError, match="backbone: 'filters' is not a backbone; give"):
        hr.compute_features(IMAGE, "filters")


def test_a_stride_may_be_any_whole_number():
    features = hr.compute_features(IMAGE, MeanOfPatches(), "identity", np.int64(2))
    assert features.stride == 2


def test_a_cpu_that_runs_out_of_memory_is_told_from_other_failures():
    class Full(MeanOfPatches):
        message = "DefaultCPUAllocator: can't allocate memory: you tried 99 bytes"

        def tokens(self, images, **options):
            raise RuntimeError(self.message)

    with pytest.raises(MemoryError, match="image: the memory ran out"):
        hr.compute_features(IMAGE, Full(), "identity")
    Full.message = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        hr.compute_features(IMAGE, Full(), "identity")


def test_compat_reference_goes_into_the_options_and_takes_the_nearest_token():
    features = hr.compute_features(IMAGE, MeanOfPatches(), "flip", compat="reference")
    assert features.part_options[0].compat == "reference"
    assert features.interpolation == "nearest"
    corrected = hr.compute_features(IMAGE, MeanOfPatches(), "flip")
    assert corrected.interpolation == "bilinear"


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match="image: 3 × 18 px is smaller than one patch"):
        hr.compute_features(IMAGE[:3], MeanOfPatches())


def test_an_image_of_one_patch_is_enough():
    features = hr.compute_features(IMAGE[:4, :4], MeanOfPatches(), "identity")
    assert features.project([[1, 0]], [0])[0] == pytest.approx(IMAGE[:4, :4].mean())
