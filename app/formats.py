"""Transcript -> json | verbose_json | text | srt | vtt.

Segments, which the last two and verbose_json show, are made of words: cut where one pauses, or when a line is full.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.ctc import Transcript, Word

PAUSE_S = 0.6
SEGMENT_S = 7.0
SEGMENT_CHARACTERS = 80
# Line ends of any script and control characters would end a cue, or the file.
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_ARROW = re.compile("-{2,}>")


@dataclass(frozen=True)
class Segment:
    """A line of a transcript; ``confidence`` is the mean over its letters, as a transcript's is."""

    text: str
    start_s: float
    end_s: float
    confidence: float
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Tried:
    """A language that was tried, and its score: the mean log probability of its frames, 0 at most. ``probability``:
    that it is the one, where that can be told."""

    language: str
    adapter: str
    score: float
    probability: float | None = None


@dataclass(frozen=True)
class Told:
    """A transcript with what the answer says of it besides. ``tried``: the likeliest first."""

    transcript: Transcript
    language: str
    adapter: str
    version: str
    truncated: bool
    request_id: str
    tried: tuple[Tried, ...] = ()


def segments(transcript: Transcript) -> tuple[Segment, ...]:
    """All words, in order: a new segment after ``PAUSE_S``, and before one passes ``SEGMENT_S`` or
    ``SEGMENT_CHARACTERS``. A word that is too long on its own is a segment of its own."""
    return tuple(map(_segment, _lines(transcript.words)))


def _lines(words: tuple[Word, ...]) -> Iterator[tuple[Word, ...]]:
    line: list[Word] = []
    for word in words:
        if line and (
            word.start_s - line[-1].end_s > PAUSE_S
            or word.end_s - line[0].start_s > SEGMENT_S
            or sum(len(w.text) + 1 for w in line) + len(word.text) > SEGMENT_CHARACTERS
        ):
            yield tuple(line)
            line = []
        line.append(word)
    if line:
        yield tuple(line)


def _segment(words: tuple[Word, ...]) -> Segment:
    letters = sum(len(word.text) for word in words)
    confidence = sum(word.confidence * len(word.text) for word in words) / letters if letters else 0.0
    end_s = max(word.end_s for word in words)
    return Segment(" ".join(word.text for word in words), words[0].start_s, end_s, confidence, words)


def as_json(told: Told, *, words: bool) -> dict[str, Any]:
    """The answer of ``POST /transcribe``."""
    content: dict[str, Any] = {
        "text": told.transcript.text,
        "language": told.language,
        "adapter": told.adapter,
        "version": told.version,
        "duration_s": round(told.transcript.duration_s, 3),
        "confidence": _rounded(told.transcript.confidence),
        "truncated": told.truncated,
        "request_id": told.request_id,
    }
    if each := languages(told):
        content["languages"] = each
    if words:
        content["words"] = [
            {"text": w.text, "start_s": _time(w.start_s), "end_s": _time(w.end_s), "confidence": _rounded(w.confidence)}
            for w in told.transcript.words
        ]
    return content


def languages(told: Told) -> list[dict[str, Any]]:
    """The languages that were tried, the likeliest first, where there were several or any might have been."""
    if len(told.tried) < 2 and not any(tried.probability is not None for tried in told.tried):
        return []
    return [
        {
            "language": tried.language,
            "adapter": tried.adapter,
            "score": round(tried.score, 4),
            "probability": _rounded(tried.probability),
        }
        for tried in told.tried
    ]


def as_verbose_json(told: Told) -> dict[str, Any]:
    """The same with words and segments."""
    lines = [
        {"text": s.text, "start_s": _time(s.start_s), "end_s": _time(s.end_s), "confidence": _rounded(s.confidence)}
        for s in segments(told.transcript)
    ]
    return {**as_json(told, words=True), "segments": lines}


def rendered(told: Told, format: str, *, words: bool) -> str:
    """The answer in any format, as text."""
    if format in PLAIN:
        return PLAIN[format][0](told.transcript)
    content = as_verbose_json(told) if format == "verbose_json" else as_json(told, words=words)
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def as_text(transcript: Transcript) -> str:
    """The text and a line end."""
    return transcript.text + "\n"


def as_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues. Nothing in it can be escaped, so what would end a cue is replaced."""
    cues = (
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_ARROW.sub('->', text)}\n"
        for number, (start, end, text) in enumerate(_cues(transcript), start=1)
    )
    return "\n".join(cues)


def as_vtt(transcript: Transcript) -> str:
    """WebVTT (W3C): ``&``, ``<`` and ``>`` are escaped, by which ``-->`` cannot occur either."""
    cues = (
        f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n{_escaped(text)}\n" for start, end, text in _cues(transcript)
    )
    return "WEBVTT\n" + "".join(cues)


#: name -> (renderer, media type) of the formats that are not JSON
PLAIN: Mapping[str, tuple[Callable[[Transcript], str], str]] = {
    "text": (as_text, "text/plain; charset=utf-8"),
    "srt": (as_srt, "application/x-subrip; charset=utf-8"),
    "vtt": (as_vtt, "text/vtt; charset=utf-8"),
}


def _cues(transcript: Transcript) -> Iterator[tuple[int, int, str]]:
    """(begin, end, text) with times in whole milliseconds; every cue lasts and none begins before the one ahead."""
    latest = 0
    for segment in segments(transcript):
        text = _BREAKS.sub(" ", segment.text).strip()
        if not text:
            continue
        start = max(latest, round(segment.start_s * 1000))
        yield start, max(start + 1, round(segment.end_s * 1000)), text
        latest = start


def _clock(milliseconds: int, mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float) -> float:
    return round(seconds, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
