from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.training.corpus.small_tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "tree"
    (root / "usr").mkdir(parents=True)
    return Tree(root)
