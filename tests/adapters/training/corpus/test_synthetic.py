"""Speech that nobody spoke: it sounds, its phones have times, and it keeps away from what is tested on."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.errors import DataError
from adapters.training.clip_samples import read_clip
from adapters.training.corpus.clip_audio import SAMPLE_RATE
from adapters.training.corpus.synthesis import Synthesizer, Voice
from adapters.training.corpus.synthetic import synthesise, untested
from adapters.training.corpus.texts import more_sentences, sentences
from adapters.training.manifest import Clip, Split, read_manifest, write_manifest
from tests.adapters.training.corpus.small_tree import Tree

ENGLISH = ("a red apple", "the big house", "two white horses", "a small boat", "the old tree", "good night")
GERMAN = ("ein roter Apfel", "das große Haus", "zwei weiße Pferde", "ein kleines Boot", "der alte Baum", "gute Nacht")


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = Tree(tmp_path / "tree")
    for number, (english, german) in enumerate(zip(ENGLISH, GERMAN, strict=True)):
        tree.tuxpaint(f"{number}", english, {"de": german, "es": "12 cosas" if number else "una cosa"})
    return tmp_path / "tree"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """English is recorded; 'a small boat' is kept for its test."""
    (tmp_path / "corpus").mkdir()
    told: list[tuple[str, Split]] = [("a red apple", "train"), ("a small boat", "test")]
    clips = [
        Clip(tmp_path / f"corpus/{n}.flac", 2.0, text, "en", "tuxpaint", "CC0-1.0", split)
        for n, (text, split) in enumerate(told)
    ]
    write_manifest(tmp_path / "corpus/manifest.jsonl", clips)
    return tmp_path / "corpus/manifest.jsonl"


def brightness(samples: np.ndarray) -> float:
    """Where the middle of the spectrum lies, in Hz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((power * np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)).sum() / power.sum())


def test_it_speaks_in_more_than_one_voice_and_at_the_speed_that_is_asked_for(synthesizer):
    spoken = synthesizer.speak("ein roter apfel", "de", Voice())
    assert 0.5 < spoken.samples.size / SAMPLE_RATE < 4
    assert np.abs(spoken.samples).max() > 0.1
    again, other = (synthesizer.speak("ein roter apfel", "de", Voice(v)) for v in ("m1", "f3"))
    assert np.abs(brightness(again.samples) - brightness(spoken.samples)) < 0.05 * brightness(spoken.samples)
    assert np.abs(brightness(other.samples) - brightness(spoken.samples)) > 0.05 * brightness(spoken.samples)
    slow = synthesizer.speak("ein roter apfel", "de", Voice(rate=100))
    assert slow.samples.size > 1.2 * spoken.samples.size


def test_phones_come_in_their_order_within_the_sound(synthesizer):
    spoken = synthesizer.speak("mama papa", "it", Voice())
    starts = [phone.start_s for phone in spoken.phones]
    assert starts == sorted(starts)
    assert 0 <= starts[0] < starts[-1] <= spoken.samples.size / SAMPLE_RATE
    names = "".join(phone.name for phone in spoken.phones)
    assert names.count("m") == 2
    assert names.count("p") == 2


def test_texts_are_turned_into_the_sounds_that_languages_share(synthesizer):
    assert synthesizer.sounds("мама папа", "bg") == "mamɐpapɐ"
    assert synthesizer.sounds("mamma, papà!", "it") == "mammapapa", "without length, stress and pauses"
    assert synthesizer.sounds("un bon vin blanc", "fr") == "œbɔvɛblɑ", "nor what is written above a letter"
    assert synthesizer.sounds("le weekend", "fr") == "ləwikɛnd", "nor which language a word is of"


def test_a_language_that_it_does_not_have_is_refused(synthesizer):
    with pytest.raises(DataError, match=r"no voice 'xx\+m1'"):
        synthesizer.speak("x", "xx", Voice())
    with pytest.raises(DataError, match="no voice 'xx'"):
        synthesizer.sounds("x", "xx")


def test_sentences_are_normalised_and_each_is_there_once(tree):
    assert sentences(tree, "es") == ["una cosa"], "and none with a digit"
    assert "das große haus" in sentences(tree, "de")
    assert len(sentences(tree, "en")) == len(ENGLISH)
    assert sentences(tree, "cs") == []


def test_a_corpus_keeps_away_from_what_is_tested_on(tree, recorded, tmp_path):
    out = tmp_path / "corpus/synthetic.jsonl"
    clips = synthesise(recorded, out, ["en", "de"], tree, takes=2, workers=1)
    found = read_manifest(out, check_files=True)
    assert found == clips
    assert all(clip.synthetic and clip.source == "espeak" for clip in clips)
    english = [clip for clip in clips if clip.language == "en"]
    assert {clip.split for clip in english} == {"train"}
    assert {clip.text for clip in english} == set(ENGLISH) - {"a small boat"}
    assert len(english) == 2 * 5
    german = [clip for clip in clips if clip.language == "de"]
    splits = {clip.text: clip.split for clip in german}
    assert len(splits) == len(GERMAN)
    assert all(splits[clip.text] == clip.split for clip in german), "both takes of a text are in one split"
    for clip in clips:
        assert read_clip(clip.path).size / SAMPLE_RATE == pytest.approx(clip.seconds, abs=0.01)
    before = {clip.path: clip.path.read_bytes() for clip in clips}
    assert synthesise(recorded, out, ["en", "de"], tree, takes=2, workers=1) == clips
    for alone in ("en", "de"):
        assert synthesise(recorded, out, [alone], tree, takes=2, workers=1) == clips, "of the other, all stays"
    assert {clip.path: clip.path.read_bytes() for clip in clips} == before
    recordings = read_manifest(recorded)
    kept = next(clip for clip in recordings if clip.split == "train" and clip.text in {c.text for c in english})
    write_manifest(recorded, [replace(c, split="test") if c is kept else c for c in recordings])
    later = synthesise(recorded, out, ["de"], tree, takes=2, workers=1)
    assert kept.text not in {clip.text for clip in later}, "as it is tested on now"


def write_messages(path: Path, messages: dict[str, str]) -> None:
    """A catalogue as gettext's ``msgfmt`` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **messages}.items())
    texts = [[pair[side].encode() for pair in pairs] for side in (0, 1)]
    place = 28 + 16 * len(pairs)
    tables, content = b"", b""
    for side in texts:
        for text in side:
            tables += struct.pack("<II", len(text), place + len(content))
            content += text + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    path.write_bytes(head + tables + content)


def test_a_games_stories_fill_up(tree, recorded, tmp_path):
    messages = {
        "Go <b>north</b>, $name|! Then rest.": "Geht nach <b>Norden</b>, $name|! Dann ruht.",
        "scenario\4The old bridge": "Die alte Brücke",
        "Quit": "Ende",
        "99 swords": "99 Schwerter",
        "a red apple": "ein roter Apfel",
    }
    write_messages(tree / "usr/share/games/wesnoth/1.16/locale/de/LC_MESSAGES/wesnoth-x.mo", messages)
    german = {"geht nach norden", "dann ruht", "die alte brücke", "ein roter apfel"}
    assert set(more_sentences(tree, "de")) == german
    assert set(more_sentences(tree, "en")) == {"go north", "then rest", "the old bridge", "a red apple"}
    assert more_sentences(tree, "cs") == []
    said = untested(recorded, "en", tree)
    assert len(said) == 5
    assert untested(recorded, "en", tree, most=5) == said
    assert set(untested(recorded, "en", tree, most=6)) - set(said) < {"go north", "then rest", "the old bridge"}
    assert set(untested(recorded, "en", tree, most=99)) - set(said) == {"go north", "then rest", "the old bridge"}


@pytest.mark.parametrize(("language", "wrong"), [("xx", "no alphabet for xx"), ("cs", "no sentences in 'cs'")])
def test_what_cannot_be_spoken_is_refused(tree, recorded, tmp_path, language, wrong):
    with pytest.raises(DataError, match=wrong):
        synthesise(recorded, tmp_path / "out.jsonl", [language], tree, workers=1)
