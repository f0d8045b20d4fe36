import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "training"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The scripts of training/ find one another as they do when they are run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("head", "tasks", "train", "validate"):
        sys.modules.pop(name, None)
