from __future__ import annotations

import numpy as np

from micrographs import make_sample
from napari_hrdv2.core.samples import example


def test_the_example_is_what_the_generator_of_training_makes() -> None:
    sample, made = example(), make_sample("grains")
    assert np.array_equal(sample.image, made.image)
    assert np.array_equal(sample.labels, made.labels)
    assert np.array_equal(sample.scribbles, made.scribbles)
    assert (sample.class_names, sample.kind) == (made.class_names, made.kind)


def test_each_example_is_the_caller_s_own() -> None:
    example().image[:] = 0
    assert example().image.mean() > 100
