import numpy as np
import pytest

from napari_hrdv2.session import Session


@pytest.fixture
def image() -> np.ndarray:
    """Dark on the left, bright on the right, with a little texture."""
    rows, columns = np.mgrid[:40, :48]
    return np.where(columns < 24, 60, 180).astype(np.uint8) + (rows * 7 % 5).astype(
        "u1"
    )


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((40, 48), np.uint8)
    labels[5:9, 4:12] = 1
    labels[20:24, 30:40] = 2
    return labels


@pytest.fixture
def session(image: np.ndarray) -> Session:
    session = Session()
    session.set_image(image)
    return session


@pytest.fixture
def trained(session: Session, labels: np.ndarray) -> Session:
    session.set_scribbles(labels)
    session.compute_features()
    session.train()
    return session
