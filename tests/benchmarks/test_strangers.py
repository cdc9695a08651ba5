"""Prompts of other speakers find their texts by their names, and none of them is to train on."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import soundfile

from adapters.training.manifest import read_manifest, write_manifest
from benchmarks.strangers import SPEAKERS, main, strangers
from tests.adapters.training.corpus.small_tree import speech_like

TEXTS = {"hello": "Buenos dias senor", "bye": "Si", "digits/1": "uno y nada mas", "odd": "marque 1 ahora"}


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


def test_prompts_are_found_by_their_names_and_kept_for_the_test(tmp_path):
    clips = strangers(small_tree(tmp_path / "tree"), tmp_path / "out")
    assert {clip.language for clip in clips} == set(SPEAKERS)
    assert {(clip.text, clip.split) for clip in clips} == {("buenos dias senor", "test"), ("uno y nada mas", "test")}
    assert all(1 < clip.seconds < 2 and clip.path.exists() for clip in clips)


def test_sentences_that_were_learnt_are_told_apart(tmp_path, capsys):
    root = small_tree(tmp_path / "tree")
    clips = strangers(root, tmp_path / "corpus")
    learnt = tmp_path / "corpus/learnt.jsonl"
    write_manifest(learnt, [replace(clip, split="train") for clip in clips if clip.text == "uno y nada mas"])
    assert len(read_manifest(learnt)) == len(SPEAKERS)
    main(["--data", str(learnt), "--out", str(tmp_path / "out"), "--packages", str(root)])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(line[0], line[1], line[4]) for line in lines] == [(f"| {tag}", "2", "1") for tag in SPEAKERS]
