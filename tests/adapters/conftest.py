from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.store import AdapterStore
from tests.adapters.places import in_memory
from tests.bucket import S3, s3_server


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """An empty store."""
    return AdapterStore(tmp_path / "adapters")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> AdapterStore:
    """An empty store in each kind of place."""
    if request.param == "folder":
        return AdapterStore(tmp_path / "adapters")
    return AdapterStore.at(in_memory() if request.param == "memory" else request.getfixturevalue("s3").bucket())
