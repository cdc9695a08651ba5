from pathlib import Path

import pytest
from hypothesis import settings

from tests.builders import make_model

# Every run tries the same examples, however busy the machine is.
settings.register_profile("tongues", deadline=None, derandomize=True)
settings.load_profile("tongues")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights: backbone/ and adapters for es, fr and ru. Not to be changed by a test."""
    return make_model(tmp_path_factory.mktemp("model"))
