from pathlib import Path

import pytest

from adapters.store import AdapterStore


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """An empty store."""
    return AdapterStore(tmp_path / "adapters")
