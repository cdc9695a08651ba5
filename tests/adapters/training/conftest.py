from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.record import AdapterRecord
from adapters.training.augmentation import Augmentation
from adapters.training.pretrain import pretrain
from adapters.training.pretrain_config import PretrainConfig, StageConfig
from adapters.training.train import train
from adapters.training.train_config import TrainConfig
from tests.adapters.training.tones import SHAPE, write_corpus

LEARNING = PretrainConfig(
    shape=SHAPE,
    units=8,
    ema=0.9,
    stages={
        "units": StageConfig(4, 4.0, 5e-3, 0.08, Augmentation()),
        "ctc": StageConfig(300, 4.0, 5e-3, 0.0, Augmentation()),
    },
)
ADAPTING = TrainConfig(size=8, steps=60, lr=3e-3, batch_s=8.0, variations=1)


@dataclass(frozen=True)
class Trained:
    """A tiny model that hears tones: its corpus, its folder, its runs and what was published. Not to be changed."""

    manifest: Path
    models: Path
    runs: Path
    records: dict[str, AdapterRecord]


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a corpus of tones. Not to be changed by a test."""
    return write_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="session")
def trained(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    models, runs = folder / "models", folder / "runs"
    pretrain(tones, runs / "backbone", models / "backbone", LEARNING)
    records = {tag: train(tones, models, tag, runs / tag, ADAPTING) for tag in ("es", "fr")}
    return Trained(tones, models, runs, records)


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """The tiny backbone without adapters."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "backbone").symlink_to(trained.models / "backbone")
    return tmp_path / "models"
