from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from napari_hrdv2.core.classifier.neighbours import neighbour_classes


@pytest.mark.parametrize("neighbours", [1, 7, 30])
def test_classes_are_those_of_scikit_learn(neighbours: int) -> None:
    rng = np.random.default_rng(0)
    memory = rng.normal(size=(211, 9)).astype(np.float32)
    queries = rng.normal(size=(5003, 9)).astype(np.float32)  # more than one batch
    labels = rng.integers(2, 6, len(memory))

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.02 - 50)

    expected = KNeighborsClassifier(neighbours, metric="cosine", weights=weights)
    expected = expected.fit(memory.astype(float), labels).predict(queries.astype(float))
    found = neighbour_classes(memory, labels, queries, neighbours=neighbours)
    assert (found == expected).mean() > 0.999  # but for ties in single precision


def test_the_length_of_a_vector_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    memory, queries = rng.normal(size=(2, 40, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 40)
    found = neighbour_classes(memory, labels, queries)
    scaled = memory * rng.uniform(0.5, 9, (40, 1)).astype(np.float32)
    np.testing.assert_array_equal(neighbour_classes(scaled, labels, 3 * queries), found)


def test_a_small_memory_votes_as_a_whole() -> None:
    memory = np.array([[1, 0], [0, 1], [0, 2]], np.float32)
    labels = np.array([3, 8, 8])
    assert (
        neighbour_classes(memory, labels, memory, temperature=9.0).tolist() == [8] * 3
    )


def test_a_memory_without_pixels_is_refused() -> None:
    empty = np.empty((0, 4), np.float32)
    with pytest.raises(ValueError, match="labels: 0 labels for 0 vectors"):
        neighbour_classes(empty, np.empty(0, int), empty)
