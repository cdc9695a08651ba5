from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from adapters.training.corpus.clip_audio import write_flac
from adapters.training.manifest import Clip, read_manifest, write_manifest
from app.commands.data import data_app

RUN = CliRunner()


def test_pack_and_unpack(tmp_path: Path) -> None:
    path = tmp_path / "corpus/audio/a.flac"
    write_flac(path, np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32))
    clip = Clip(path, 0.5, "hiss", "en", "made", "CC0-1.0", "train")
    write_manifest(tmp_path / "corpus/manifest.jsonl", [clip])
    packed = RUN.invoke(
        data_app, ["pack", "--data", str(tmp_path / "corpus/manifest.jsonl"), "--out", str(tmp_path / "packed")]
    )
    assert packed.exit_code == 0, packed.output
    assert "pack-000.opus" in packed.output
    unpacked = RUN.invoke(
        data_app, ["unpack", "--index", str(tmp_path / "packed/index.jsonl"), "--out", str(tmp_path / "back")]
    )
    assert unpacked.exit_code == 0, unpacked.output
    assert read_manifest(tmp_path / "back/manifest.jsonl", check_files=True)[0].text == "hiss"


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    result = RUN.invoke(
        data_app, ["build", "--out", str(tmp_path), "--languages", "es,xx", "--packages", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "error: no recordings in xx; there are be, bg" in result.output
    assert "Traceback" not in result.output
