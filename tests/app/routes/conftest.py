from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.backbone import load_backbone
from adapters.config import AdapterConfig, top_layers
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from tests.app.routes.publisher import Publish
from tests.builders import LETTERS, publish_random


@pytest.fixture(scope="module")
def folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which es, fr and ru are there, and which other tests change."""
    return shutil.copytree(model_folder, tmp_path_factory.mktemp("published") / "model")


@pytest.fixture
def elsewhere(folder: Path, tmp_path: Path) -> Publish:
    """Publish a random adapter to a store of the test's own: its name and seed -> the version."""
    encoder = load_backbone(folder / "backbone")

    def publish(name: str, seed: int, *, language: str = "", to: Path = tmp_path) -> str:
        vocab = Vocab(("<pad>", "|", *LETTERS[language or name]))
        config = AdapterConfig("bottleneck", 8, top_layers(4, 2), "adapted", vocab.size)
        (to / "backbone").exists() or shutil.copytree(folder / "backbone", to / "backbone")
        publish_random(to, name, config, vocab, encoder, seed=seed, language=language or name)
        return AdapterStore(to / "adapters").record(name).version

    return publish
