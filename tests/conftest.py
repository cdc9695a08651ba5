import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.hub import HUB, Hub

# The hub of all tests is one of their own, and nothing that they fetch stays. Read when huggingface_hub is imported.
# The port stays theirs; nobody listens on it before the first test that wants a hub.
os.environ["HF_ENDPOINT"] = HUB.url
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="tongues-hub-")
os.environ.pop("HF_TOKEN", None)

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


@pytest.fixture(scope="session")
def _hub() -> Iterator[Hub]:
    with HUB.running() as running:
        yield running


@pytest.fixture
def hub(_hub: Hub) -> Iterator[Hub]:
    """A model hub without repositories."""
    _hub.forget()
    yield _hub
    _hub.forget()


@pytest.fixture(autouse=True)
def _denormals_stay() -> Iterator[None]:
    """Training flushes denormal numbers to zero in the whole process; other tests count on them."""
    yield
    torch.set_flush_denormal(False)
