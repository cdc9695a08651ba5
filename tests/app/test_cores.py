"""No more lanes than there is time for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.cores import usable_cores

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000", CORES),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("150000 100000", min(2, CORES)),
        ("99900000 100000", CORES),
        ("nonsense", CORES),
        (None, CORES),
    ],
)
def test_cores_of_a_group(tmp_path: Path, content: str | None, cores: int) -> None:
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert usable_cores(tmp_path / "cpu.max") == cores
