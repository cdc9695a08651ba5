from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.builders import make_model

# Every run tries the same examples, however busy the machine is.
settings.register_profile("tongues", deadline=None, derandomize=True)
settings.load_profile("tongues")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights: backbone/ and adapters for es, fr and ru. Not to be changed by a test."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _denormals_stay() -> Iterator[None]:
    """Training flushes denormal numbers to zero in the whole process; other tests count on them."""
    yield
    torch.set_flush_denormal(False)
