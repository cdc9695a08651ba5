from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from adapters.errors import DataError
from adapters.training.corpus.build import build, misfit
from adapters.training.corpus.report import read_left_out
from adapters.training.manifest import SPLITS, read_manifest
from tests.adapters.training.corpus.small_tree import Tree

LETTERS = "abcdefghijklmnopqrstuvwxyz"
QUIET = Console(file=io.StringIO())


def _words(number: int) -> str:
    """A different sentence for each number, without digits."""
    word = LETTERS[number % 26] + LETTERS[number // 26 % 26]
    return f"The message {word} was {word[::-1]} saved"


@pytest.fixture
def english(tree: Tree) -> Tree:
    texts = {f"digits/m{number}": f"{_words(number)}." for number in range(90)}
    texts |= {
        "again": _words(0).upper(),
        "beep": "[beep]",
        "gone": "Nobody is here!!",
        "pin": "Press 1",
        "long": "And so it goes on. " * 15,
        "short": "I",
        "slow": "So slow",
        "fast": "Much too much is written here for what is said",
    }
    lengths = {"I": 0.02, "So slow": 4.0, texts["fast"]: 0.7}
    tree.asterisk("en", texts, lambda text: lengths.get(text, max(0.6, len(text) / 13)))
    stamps = tree.root / "usr/share/tuxpaint/stamps"
    tree.tuxpaint("animals/wombat", "A wombat.", {"fr": "Un wombat."})
    shutil.copy(stamps / "animals/wombat_desc.ogg", stamps / "same_desc.ogg")
    (stamps / "same.txt").write_text("A wombat\n")
    tree.tuxpaint("animals/fox", "A fox.", {})
    shutil.copy(stamps / "animals/fox_desc.ogg", stamps / "other_desc.ogg")
    (stamps / "other.txt").write_text("A red fox.\n")
    return tree


def test_build(english: Tree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = build(out, ["en"], english.root, workers=2, console=QUIET)
    clips = read_manifest(out / "manifest.jsonl", check_files=True)
    assert report.keys() == {"en"}
    assert report["en"].rejects == {
        "stage direction": 1,
        "missing audio": 1,
        "digits": 1,
        "too long": 1,
        "too short": 1,
        "text too short for its clip": 1,
        "text too long for its clip": 1,
        "duplicate": 1,
        "one sound, several texts": 2,
    }
    left = read_left_out(out / "left-out.jsonl")
    assert Counter(one.reason for one in left) == report["en"].rejects
    assert {one.language for one in left} == {"en"}
    assert all(Path(one.where).name for one in left)
    assert len(clips) == 92
    for clip in clips:
        info = soundfile.info(clip.path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert clip.seconds == pytest.approx(info.duration, abs=1e-3)
        assert clip.language == "en"
    splits = defaultdict(set)
    for clip in clips:
        splits[clip.text].add(clip.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {clip.split for clip in clips} == set(SPLITS)
    assert sum(clip.seconds for clip in clips if clip.split == "test") >= 120
    saved = json.loads((out / "report.json").read_text())
    assert sum(saved["en"]["clips"].values()) == len(clips)
    line = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    assert line["path"].startswith("audio/en/asterisk/")


def test_a_killed_build_goes_on_where_it_stopped(english: Tree, tmp_path: Path) -> None:
    build(tmp_path / "whole", ["en"], english.root, workers=1, console=QUIET)
    out = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from adapters.training.corpus.build import build\n"
        "build(Path(sys.argv[1]), ['en'], Path(sys.argv[2]), workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(out), str(english.root)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while len(list(out.rglob("*.flac"))) < 10 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    early = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert len(early) >= 10
    broken = out / "audio" / "en" / "asterisk" / ".digits--m0.flac.1.tmp"
    broken.write_bytes(b"fL")
    (out / "audio" / "en" / "asterisk" / "digits--m89.flac").write_bytes(b"fLaC")  # as if the disk had lost it
    build(out, ["en"], english.root, workers=1, console=QUIET)
    assert (out / "manifest.jsonl").read_bytes() == (tmp_path / "whole" / "manifest.jsonl").read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in early if path.name != "digits--m89.flac"}
    assert kept == {path: early[path] for path in kept}
    assert not list(out.rglob("*.tmp"))
    for path in (tmp_path / "whole" / "audio").rglob("*.flac"):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_text_of_two_languages_is_in_one_split(tree: Tree, tmp_path: Path) -> None:
    for language in ("es", "it"):
        extra = 400 if language == "es" else 20
        tree.asterisk(language, {f"m{number}": "no " + _words(number) for number in range(extra)}, lambda text: 1.8)
    for number in range(2):
        tree.tuxpaint(f"s{number}", "A", {"es": "uno"})
    build(tmp_path / "out", ["es", "it"], tree.root, workers=2, console=QUIET)
    splits = defaultdict(set)
    for clip in read_manifest(tmp_path / "out" / "manifest.jsonl"):
        splits[clip.text].add(clip.split)
    assert all(len(found) == 1 for found in splits.values())


def test_unknown_languages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recordings in de, xx; there are be, bg, .*"):
        build(tmp_path, ["xx", "en", "de"], tmp_path, console=QUIET)


@pytest.mark.parametrize(
    ("text", "seconds", "reason"),
    [
        ("hello there", 1.0, None),
        ("a", 0.29, "too short"),
        ("a" * 160, 16.1, "too long"),
        ("abc" * 10, 1.0, "text too long for its clip"),
        ("hello", 4.0, "text too short for its clip"),
        ("hi", 2.9, None),
    ],
)
def test_misfit(text: str, seconds: float, reason: str | None) -> None:
    assert misfit(text, seconds) == reason
