"""Prompts of other speakers find their texts by their names, and none of them is to train on."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import soundfile

from benchmarks.strangers import SPEAKERS, main, strangers
from tests.adapters.training.corpus.small_tree import speech_like

TEXTS = {"hello": "Buenos dias", "digits/1": "Uno", "digits/day-0": "domingo", "digits/2": "2", "digits/hour": "hora"}


def small_tree(root: Path) -> Path:
    for number, (language, (_, folder, _)) in enumerate(SPEAKERS.items()):
        listed = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
        listed.parent.mkdir(parents=True)
        listed.write_bytes(gzip.compress("".join(f"{name}: {text}\n" for name, text in TEXTS.items()).encode()))
        for place, name in enumerate([*TEXTS, "unlisted"]):
            path = root / f"usr/share/asterisk/sounds/{folder}/{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speech_like(1.5, 10 * number + place)[::2], 8_000)
    return root


def test_numbers_days_and_months_are_found_by_their_names_and_kept_for_the_test(tmp_path):
    clips = strangers(small_tree(tmp_path / "tree"), tmp_path / "out")
    assert {clip.language for clip in clips} == set(SPEAKERS)
    assert {(clip.text, clip.split) for clip in clips} == {("uno", "test"), ("domingo", "test")}
    assert all(1 < clip.seconds < 2 and clip.path.exists() for clip in clips)


def test_each_language_has_its_rates(tmp_path, capsys):
    main(["--out", str(tmp_path / "out"), "--packages", str(small_tree(tmp_path / "tree"))])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[:2] for line in lines[:-1]] == [[f"| {tag}", "2"] for tag in SPEAKERS]
    mean = sum(float(line[2]) for line in lines[:-1]) / len(SPEAKERS)
    assert float(lines[-1][1].removeprefix("| ")) == pytest.approx(mean, abs=0.11)
