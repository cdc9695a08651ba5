from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.app.live import Live, serving


@pytest.fixture(scope="session")
def live(model_folder: Path) -> Iterator[Live]:
    """The service with a model of random weights that speaks es, fr and ru."""
    settings = Settings.read(
        models=model_folder, max_upload_bytes=4_000_000, max_audio_s=700, max_requests=4, upload_idle_s=2.0, threads=1
    )
    with serving(settings) as server:
        yield server
