"""Voices that are commands: how they are told, what they are asked, and what becomes of what they do not say."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from adapters.errors import DataError
from adapters.training.clip_samples import read_clip
from adapters.training.corpus import voices as module
from adapters.training.corpus.clip_audio import SAMPLE_RATE
from adapters.training.corpus.synthetic import synthesise
from adapters.training.corpus.voices import CommandVoice, Unspoken, read_voices
from adapters.training.manifest import read_manifest
from tests.adapters.training.corpus.small_tree import Tree
from tests.adapters.training.corpus.test_synthetic import ENGLISH, recorded, tree

__all__ = ["recorded", "tree"]  # fixtures

SPEAK = """
import sys
import soundfile
from adapters.training.corpus.synthesis import Synthesizer, Voice
text = open(sys.argv[1], encoding=sys.argv[3]).read()
if "night" in text:
    sys.exit("this voice does not say good night")
spoken = Synthesizer().speak(text, sys.argv[4], Voice("f2"))
soundfile.write(sys.argv[2], spoken.samples[::2], 8000)
"""
"""A synthesizer that is a program, at a rate of its own."""


def speaker(tmp_path: Path, name: str, language: str, *, script: str = SPEAK, **more: object) -> CommandVoice:
    program = tmp_path / f"{name}.py"
    program.write_text(script, encoding="utf-8")
    encoding = str(more.get("encoding", "utf-8"))
    command = (sys.executable, str(program), "{file}", "{wav}", encoding, language)
    return CommandVoice(name, "others", language, command, **more)  # type: ignore[arg-type]


def test_a_command_lends_its_voice(tmp_path):
    samples = speaker(tmp_path, "sonia", "de", encoding="iso-8859-1").speak("das große haus")
    assert 0.5 < samples.size / SAMPLE_RATE < 4, "at the rate that clips have"
    assert abs(samples).max() > 0.1


def test_a_neighbours_voice_reads_what_is_respelt(tmp_path):
    echo = "import sys; sys.exit(open(sys.argv[1], encoding='iso-8859-15').read())"
    voice = speaker(tmp_path, "echo", "el", script=echo, encoding="iso-8859-15", respell=(("ού", "ú"), ("ν", "n")))
    with pytest.raises(Unspoken, match=r"ended with 1: nún$"):
        voice.speak("νούν")
    with pytest.raises(Unspoken, match="iso-8859-15 has no letter 'ο'"):
        voice.speak("νον")


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("", "wrote no sound: it says nothing"),
        ("import sys; print('no such voice', file=sys.stderr)", "wrote no sound: no such voice"),
        ("import sys; print('late', file=sys.stderr); sys.exit(3)", "ended with 3: late"),
        ("import sys; open(sys.argv[2], 'w').write('not a sound')", "wrote no sound"),
        ("import time; time.sleep(60)", "timed out"),
    ],
)
def test_what_is_not_said_is_told(tmp_path, monkeypatch, script, wrong):
    monkeypatch.setattr(module, "_MOST_S", 1)
    with pytest.raises(Unspoken, match=wrong):
        speaker(tmp_path, "mute", "de", script=script).speak("ein haus")


def test_a_corpus_has_further_voices_beside(tree, recorded, tmp_path):
    out = tmp_path / "corpus/synthetic.jsonl"
    told: list[str] = []
    lent = [speaker(tmp_path, "ann", "en"), speaker(tmp_path, "bob", "en"), speaker(tmp_path, "sonia", "de")]
    alone = synthesise(recorded, out, ["en", "de"], tree, workers=1)
    clips = synthesise(recorded, out, ["en", "de"], tree, voices=lent, each=3, workers=1, announce=told.append)
    assert [clip for clip in clips if clip.source == "espeak" and clip.language == "en"] == [
        clip for clip in alone if clip.language == "en"
    ], "what was there stays"
    found = {name: [clip for clip in clips if clip.voice == name] for name in ("ann", "bob", "sonia")}
    unsaid = {line.partition(":")[0]: line for line in told}
    for name, some in found.items():
        language = "de" if name == "sonia" else "en"
        assert {(clip.language, clip.source, clip.synthetic) for clip in some} == {(language, "others", True)}
        assert len(some) == 3 - (name in unsaid), "so many as were asked for, but for those that it does not say"
    assert {clip.text for clip in found["ann"]} != {clip.text for clip in found["bob"]}, "each says others"
    assert {clip.text for clip in [*found["ann"], *found["bob"]]} <= set(ENGLISH) - {"a small boat"}
    splits = {clip.text: clip.split for clip in clips if clip.language == "de"}
    assert all(splits[clip.text] == clip.split for clip in clips if clip.language == "de"), "whoever says it"
    for clip in found["ann"]:
        assert read_clip(clip.path).size / SAMPLE_RATE == pytest.approx(clip.seconds, abs=0.01)
    before = {clip.path: clip.path.read_bytes() for clip in clips}
    assert synthesise(recorded, out, ["en", "de"], tree, voices=lent, each=3, workers=1) == clips
    assert synthesise(recorded, out, ["en"], tree, takes=0, workers=1) == clips, "whatever else is asked for later"
    assert {clip.path: clip.path.read_bytes() for clip in clips} == before


def test_what_one_voice_does_not_say_is_counted_and_a_voice_that_says_nothing_is_an_error(recorded, tmp_path):
    small = Tree(tmp_path / "tree")
    small.tuxpaint("1", "good night", {})
    small.tuxpaint("2", "a red apple", {})
    out = tmp_path / "corpus/synthetic.jsonl"
    told: list[str] = []
    asked = (recorded, out, ["en"], tmp_path / "tree")
    lent = [speaker(tmp_path, "ann", "en")]
    clips = synthesise(*asked, takes=0, voices=lent, workers=1, announce=told.append)
    assert [clip.text for clip in clips] == ["a red apple"]
    assert told[-1].startswith("ann: 1 of 2 sentences left out; the last: ")
    assert told[-1].endswith("ended with 1: this voice does not say good night")
    lent.append(speaker(tmp_path, "mute", "en", script="import sys; sys.exit('no voice_mute')"))
    with pytest.raises(DataError, match=r"not a sentence is said by mute \(.* ended with 1: no voice_mute\)"):
        synthesise(*asked, takes=0, voices=lent, workers=1, announce=told.append)
    assert read_manifest(out) == clips, "and what the others say is there"


VOICE = """
[[voice]]
name = "sonia"
source = "festival"
language = "de"
command = ["sh", "{text}", "{wav}"]
"""


def test_a_file_tells_of_voices(tmp_path):
    path = tmp_path / "voices.toml"
    path.write_text(
        VOICE + 'encoding = "latin-1"\nrespell = "x"\n[respell]\nx = [["ß", "ss"], ["ä", "e"]]\n', encoding="utf-8"
    )
    command = ("sh", "{text}", "{wav}")
    assert read_voices(path) == [CommandVoice("sonia", "festival", "de", command, "latin-1", (("ß", "ss"), ("ä", "e")))]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", r"expected \[\[voice\]\]"),
        ("voice = 3", r"expected \[\[voice\]\]"),
        ("voice = [3]", "voice 1: expected a table"),
        ("[[voice]", "voices.toml: .*line 1"),
        (VOICE + "speed = 3", "voice 1: unknown speed; known are"),
        (VOICE.replace('language = "de"', ""), "voice 1: missing language"),
        (VOICE.replace('"de"', '"xx"'), "voice 1: no alphabet for 'xx'"),
        (VOICE.replace('"sonia"', '"../sonia"'), "voice 1: name takes letters"),
        (VOICE.replace('"festival"', "3"), "voice 1: source must be a text"),
        (VOICE.replace('"{wav}"', '"-"'), "of which one has {wav} in it"),
        (VOICE.replace('"{text}"', '"-"'), "must have {text} or {file} in it"),
        (VOICE + 'encoding = "utf-9"', "no encoding 'utf-9'"),
        (VOICE + 'respell = "x"', "no respelling 'x'; there are none"),
        (VOICE + '[respell]\nx = [["a"]]', "respell.x must be a list of pairs"),
        (VOICE + VOICE, "more than one voice is called sonia"),
        (VOICE.replace('"sh"', '"no-such-program"'), "not installed: no-such-program; install"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_the_place_is_told(tmp_path, content, wrong):
    path = tmp_path / "voices.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=wrong):
        read_voices(path)


def test_the_file_of_the_shipped_model_is_in_order(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)  # installed or not
    voices = read_voices(Path(module.__file__).with_name("voices.toml"))
    sentences = {
        "el": "ένα μήλο και μια ψυχή γύρω από τον αέρα, ζω",
        "be": "мы з'елі яблык ў лесе",
        "bg": "ще ям ябълка",
    }
    for voice in voices:
        if voice.respell:
            text = sentences[voice.language]
            for old, new in voice.respell:
                text = text.replace(old, new)
            if voice.language == "el":
                assert text == "éna mílo ke mia psijí yíro apó ton aéra, so"
            text.encode(voice.encoding)
    assert {voice.language for voice in voices} >= {"de", "en", "es", "fr", "it", "cs", "ru", "ca", "el", "bg", "be"}
