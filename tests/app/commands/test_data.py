from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
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


def test_an_import_says_where_all_is_listed_that_it_leaves_out(tmp_path: Path) -> None:
    rows = [f"{number}.wav,ena\n" for number in range(30)]
    (tmp_path / "list.csv").write_text("path,text\na.wav,ena dva\n" + "".join(rows))
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 16_000)
    options = ["--lang", "sl", "--licence", "CC0-1.0", "--out", str(tmp_path / "out"), "--workers", "1"]
    result = RUN.invoke(data_app, ["import", str(tmp_path / "list.csv"), *options])
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if "left out" in line]
    assert told[0] == f"left out: {tmp_path}/list.csv:3: missing audio"
    assert told[20:] == ["left out: 10 more", f"30 are left out, all listed in {tmp_path}/out/left-out.jsonl"]
    assert len((tmp_path / "out/left-out.jsonl").read_text().splitlines()) == 30


def test_voices_that_are_not_installed_are_told_before_anything_is_made(tmp_path: Path) -> None:
    clip = Clip(tmp_path / "a.flac", 0.5, "hiss", "en", "made", "CC0-1.0", "train")
    write_manifest(tmp_path / "manifest.jsonl", [clip])
    voice = '[[voice]]\nname = "x"\nsource = "y"\nlanguage = "en"\ncommand = ["no-such-program", "{text}", "{wav}"]\n'
    (tmp_path / "voices.toml").write_text(voice)
    options = ["--data", str(tmp_path / "manifest.jsonl"), "--out", str(tmp_path / "said/manifest.jsonl")]
    result = RUN.invoke(data_app, ["synthesise", *options, "--lang", "en", "--voices", str(tmp_path / "voices.toml")])
    assert result.exit_code == 1
    assert "voices.toml: not installed: no-such-program" in result.output
    assert not (tmp_path / "said").exists()
