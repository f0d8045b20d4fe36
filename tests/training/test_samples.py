from __future__ import annotations

import numpy as np
import pytest

from micrographs import make_sample, sample_kinds

SHAPE = (96, 112)
# Mean grey, mean label, drawn pixels of each kind at SHAPE: documents quote figures.
DRAWN = {
    "grains": (147.85, 1.3062, 1234),
    "particles": (106.03, 1.2858, 919),
    "spinodal": (130.32, 1.4574, 727),
    "fibres": (109.61, 1.7428, 983),
    "lamellae": (138.31, 1.7502, 1316),
    "stain": (164.36, 2.1212, 1131),
}


@pytest.mark.parametrize("kind", sample_kinds())
def test_every_kind_shows_all_its_classes_and_has_strokes_in_each(kind: str) -> None:
    sample = make_sample(kind, SHAPE)
    ids = list(range(1, len(sample.class_names) + 1))
    assert sample.image.dtype == np.uint8
    assert sample.image.shape[:2] == SHAPE == sample.labels.shape
    assert np.unique(sample.labels).tolist() == ids
    assert np.unique(sample.scribbles).tolist() == [0, *ids]


@pytest.mark.parametrize("kind", sample_kinds())
def test_strokes_are_true_and_few(kind: str) -> None:
    sample = make_sample(kind, SHAPE)
    drawn = sample.scribbles > 0
    assert np.array_equal(sample.scribbles[drawn], sample.labels[drawn])
    assert 0.002 < drawn.mean() < 0.15


@pytest.mark.parametrize("kind", DRAWN)
def test_no_single_threshold_finds_the_classes(kind: str) -> None:
    sample = make_sample(kind, SHAPE)
    grey = sample.image if sample.image.ndim == 2 else sample.image.mean(axis=-1)
    levels = range(8, 256, 8)
    for label in np.unique(sample.labels):
        truth = sample.labels == label
        hits = max(
            max(((grey > x) == truth).mean(), ((grey <= x) == truth).mean())
            for x in levels
        )
        assert hits < 0.995


@pytest.mark.parametrize("kind", DRAWN)
def test_a_kind_stays_as_it_was(kind: str) -> None:
    sample = make_sample(kind, SHAPE)
    seen = sample.image.mean(), sample.labels.mean(), (sample.scribbles > 0).sum()
    assert seen == pytest.approx(DRAWN[kind], rel=0.002)


def test_random_samples_differ_in_everything_from_seed_to_seed() -> None:
    assert sample_kinds() == (*DRAWN, "random")
    made = [make_sample("random", SHAPE, seed=seed) for seed in range(12)]
    assert {"class 1", "class 2"} <= set(made[0].class_names)
    assert len({sample.class_names for sample in made}) > 1
    assert {sample.image.ndim for sample in made} == {2, 3}


def test_the_seed_decides() -> None:
    first, again = make_sample("grains", SHAPE), make_sample("grains", SHAPE)
    other = make_sample("grains", SHAPE, seed=1)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.scribbles, again.scribbles)
    assert not np.array_equal(first.image, other.image)


def test_only_the_stained_tissue_is_in_colour() -> None:
    colored = [k for k in DRAWN if make_sample(k, SHAPE).image.ndim == 3]
    assert colored == ["stain"]


@pytest.mark.parametrize("shape", [(48, 48), (49, 131)])
def test_small_and_long_images_have_all_classes(shape: tuple[int, int]) -> None:
    for kind in sample_kinds():
        sample = make_sample(kind, shape)
        classes = len(sample.class_names)
        assert sample.labels.shape == shape
        assert len(np.unique(sample.scribbles)) == classes + 1


def test_unknown_kinds_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="kind: 'cheese' is not one of grains, part"):
        make_sample("cheese")
    with pytest.raises(ValueError, match="at least 48 pixels"):
        make_sample("grains", (47, 100))
    with pytest.raises(ValueError, match="is not two sizes"):
        make_sample("grains", (64, 64, 64))  # type: ignore[arg-type]
