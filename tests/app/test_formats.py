from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ctc import Transcript, Word
from app.formats import (
    PAUSE_S,
    SEGMENT_CHARACTERS,
    SEGMENT_S,
    Told,
    as_json,
    as_srt,
    as_text,
    as_verbose_json,
    as_vtt,
    rendered,
    segments,
)

TEXTS = st.text(min_size=1, max_size=100).filter(lambda text: " " not in text)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words in order, as CTC gives them; any text, any gaps."""
    words, now = [], draw(st.floats(0, 1e5))
    for text in draw(st.lists(TEXTS, max_size=30)):
        start = now + draw(st.floats(0, 2))
        now = start + draw(st.floats(0, 10))
        words.append(Word(text, start, now, draw(st.floats(0, 1))))
    return Transcript(" ".join(word.text for word in words), tuple(words), now, 0.5 if words else None)


def told(transcript: Transcript) -> Told:
    return Told(transcript, "es", "es-1", "0123456789ab", False, "r-1")


SAID = Transcript(
    "hola a todos adiós",
    (
        Word("hola", 0.1, 0.4, 0.9),
        Word("a", 0.5, 0.56, 0.8),
        Word("todos", 0.6, 1.0, 0.7),
        Word("adiós", 3661.2345, 3662.0, 0.5),
    ),
    3663.0,
    0.7,
)


def test_srt() -> None:
    assert as_srt(SAID) == (
        "1\n00:00:00,100 --> 00:00:01,000\nhola a todos\n\n2\n01:01:01,234 --> 01:01:02,000\nadiós\n"
    )


def test_vtt() -> None:
    assert as_vtt(SAID) == (
        "WEBVTT\n\n00:00:00.100 --> 00:00:01.000\nhola a todos\n\n01:01:01.234 --> 01:01:02.000\nadiós\n"
    )


def test_text_and_json() -> None:
    assert as_text(SAID) == "hola a todos adiós\n"
    content = as_json(told(SAID), words=True)
    assert content["words"][0] == {"text": "hola", "start_s": 0.1, "end_s": 0.4, "confidence": 0.9}
    assert "words" not in as_json(told(SAID), words=False)
    assert content.keys() - {"words"} == {
        "text", "language", "adapter", "version", "duration_s", "confidence", "truncated", "request_id",
    }  # fmt: skip
    verbose = as_verbose_json(told(SAID))
    assert [line["text"] for line in verbose["segments"]] == ["hola a todos", "adiós"]
    assert verbose["segments"][0]["confidence"] == pytest.approx((4 * 0.9 + 0.8 + 5 * 0.7) / 10)


def test_nothing_was_said() -> None:
    nothing = Transcript("", (), 2.0, None)
    assert (as_text(nothing), as_srt(nothing), as_vtt(nothing)) == ("\n", "", "WEBVTT\n")
    assert as_verbose_json(told(nothing))["segments"] == []
    assert as_json(told(nothing), words=True)["confidence"] is None


def test_what_would_end_a_cue_is_escaped() -> None:
    hostile = Transcript("", (Word("<b>&-->\n\n1\r\u2028x", 0.0, 1.0, 1.0),), 1.0, 1.0)
    assert as_vtt(hostile).splitlines()[3:] == ["&lt;b&gt;&amp;--&gt; 1 x"]
    assert as_srt(hostile).splitlines()[2:] == ["<b>&-> 1 x"]
    assert as_srt(Transcript.of([Word("a----->b", 0.0, 1.0, 1.0)], 1.0)).splitlines()[2:] == ["a->b"]


@given(transcripts())
def test_segments_hold_all_words_in_order(transcript: Transcript) -> None:
    lines = segments(transcript)
    assert [word for line in lines for word in line.words] == list(transcript.words)
    for line in lines:
        assert line.text == " ".join(word.text for word in line.words)
        assert len(line.text) <= SEGMENT_CHARACTERS or len(line.words) == 1
        assert line.end_s - line.start_s <= SEGMENT_S or len(line.words) == 1
        assert 0 <= line.confidence <= 1 + 1e-9
        for one, other in zip(line.words, line.words[1:], strict=False):
            assert other.start_s - one.end_s <= PAUSE_S


_TIME = r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})"


def milliseconds(line: str, mark: str) -> tuple[int, int]:
    match = re.fullmatch(f"{_TIME} --> {_TIME}", line)
    assert match is not None
    assert line.count(mark) >= 2
    h, m, s, f, h2, m2, s2, f2 = map(int, match.groups())
    return ((h * 60 + m) * 60 + s) * 1000 + f, ((h2 * 60 + m2) * 60 + s2) * 1000 + f2


@given(transcripts())
def test_srt_and_vtt_can_be_read_back(transcript: Transcript) -> None:
    srt, vtt = as_srt(transcript), as_vtt(transcript)
    assert vtt.startswith("WEBVTT\n")
    cues = [cue.split("\n") for cue in srt.split("\n\n") if cue]
    others = [cue.strip("\n").split("\n") for cue in vtt.removeprefix("WEBVTT\n").split("\n\n") if cue]
    assert len(cues) == len(others) <= len(segments(transcript))
    before = 0
    for number, (cue, other) in enumerate(zip(cues, others, strict=True), start=1):
        assert cue[0] == str(number)
        begin, end = milliseconds(cue[1], ",")
        assert (begin, end) == milliseconds(other[0], ".")
        assert before <= begin < end
        before = begin
        assert cue[2].strip()
        assert "-->" not in cue[2]
        assert not set("<>") & set(other[1])
        assert len(other) == 2


@given(transcripts(), st.sampled_from(["json", "verbose_json", "text", "srt", "vtt"]))
def test_every_format_is_text(transcript: Transcript, format: str) -> None:
    text = rendered(told(transcript), format, words=True)
    if format.endswith("json"):
        assert json.loads(text)["text"] == transcript.text
