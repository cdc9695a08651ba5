"""Packages -> FLAC files and a manifest: the whole of `tongues data build`.

Can be broken off anywhere and started again: a FLAC that is there is not made again, and the manifest is written
last, whole.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track

from adapters.errors import DataError
from adapters.training.corpus.clip_audio import (
    SAMPLE_RATE,
    UnusableAudio,
    flac_seconds,
    remove_broken_off,
    trimmed,
    write_flac,
)
from adapters.training.corpus.packages import unpacked_tree
from adapters.training.corpus.report import LEFT_OUT, LeftOut, Report, make_report, write_left_out, write_report
from adapters.training.corpus.sources import LANGUAGES, SOURCES, Recording, packages_for
from adapters.training.corpus.split import split_texts
from adapters.training.corpus.text import UnusableText, normalise, rare_letters
from adapters.training.manifest import Clip, write_manifest

MIN_SECONDS, MAX_SECONDS = 0.3, 16.0
FRAMES_PER_SECOND = 50
"""Of a wav2vec 2.0 backbone."""
MAX_LETTERS_PER_SECOND = 25.0
MIN_LETTERS_PER_SECOND, SLOW_AFTER_SECONDS = 2.5, 3.0
"""Slower than this, in clips longer than that, and the transcript misses something."""
HASTE = 2.0
"""Times the median rate of its language and source: faster, and not all of the transcript is said."""


@dataclass(frozen=True)
class Reject:
    """A recording that is not in the corpus, and why."""

    recording: Recording
    reason: str


def build(
    out: Path,
    languages: Sequence[str] = (),
    packages: Path | None = None,
    *,
    workers: int = 2,
    console: Console | None = None,
) -> Report:
    """Make the corpus of `languages` (all, if none are named) in `out`: manifest.jsonl, what is left out of it in
    left-out.jsonl, report.json and audio/.

    Args:
        packages: a folder with the ``.deb`` files or an unpacked tree; else they are fetched into ``out/.packages``.

    Raises:
        DataError: an unknown language, or packages that cannot be had.
    """
    console = console or Console(stderr=True)
    wanted = tuple(sorted(set(languages))) or LANGUAGES
    if unknown := sorted(set(wanted) - set(LANGUAGES)):
        raise DataError(f"no recordings in {', '.join(unknown)}; there are {', '.join(LANGUAGES)}")
    remove_broken_off(out / "audio")
    root = unpacked_tree(packages_for(wanted), out / ".packages", packages, announce=console.print)
    found = [
        recording
        for source in SOURCES
        for language in source.languages
        if language in wanted
        for recording in source.recordings(root, language)
    ]
    rejects: list[Reject] = []
    recordings = distinct(_with_usable_text(found, rejects), rejects)
    clips = with_usable_audio(recordings, out, workers, console, rejects)
    clips = _with_split(unhurried(clips, rejects), rejects)
    if not clips:
        raise DataError(f"nothing usable among {len(found)} recordings in {root}")
    clips.sort(key=lambda clip: (clip.language, clip.path))
    write_manifest(out / "manifest.jsonl", clips)
    left = left_out(rejects)
    write_left_out(out / LEFT_OUT, left)
    report = make_report(clips, ((one.language, one.reason) for one in left))
    write_report(out / "report.json", report)
    return report


def left_out(rejects: Iterable[Reject]) -> list[LeftOut]:
    """Each by where it is listed, or by its path where nothing lists it."""
    told = ((reject.recording, reject.reason) for reject in rejects)
    return [LeftOut(one.where or str(one.path), reason, one.language, one.source) for one, reason in told]


def _with_usable_text(recordings: Sequence[Recording], rejects: list[Reject]) -> list[Recording]:
    """Those with sound and a transcript that can be trusted, their texts normalised."""
    usable: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        if not recording.path.is_file():
            rejects.append(Reject(recording, "missing audio"))
        elif recording.text is None:
            rejects.append(Reject(recording, "no transcript"))
        else:
            try:
                text = normalise(recording.text, recording.language)
            except UnusableText as error:
                rejects.append(Reject(recording, error.reason))
            else:
                usable[recording.language].append(replace(recording, text=text))
    kept: list[Recording] = []
    for language, candidates in usable.items():
        rare = rare_letters((recording.text or "" for recording in candidates), language)
        for recording in candidates:
            if rare.isdisjoint(recording.text or ""):
                kept.append(recording)
            else:
                rejects.append(Reject(recording, "foreign letters"))
    return kept


def distinct(recordings: Sequence[Recording], rejects: list[Reject]) -> list[Recording]:
    """Each recorded sound once. One that goes by several texts or languages is right for one at most: none is kept."""
    by_content: dict[bytes, list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_content[hashlib.sha256(recording.path.read_bytes()).digest()].append(recording)
    kept: list[Recording] = []
    for same in by_content.values():
        if len({(recording.language, recording.text) for recording in same}) > 1:
            rejects += [Reject(recording, "one sound, several texts") for recording in same]
        else:
            kept.append(same[0])
            rejects += [Reject(recording, "duplicate") for recording in same[1:]]
    return kept


def with_usable_audio(
    recordings: Sequence[Recording], out: Path, workers: int, console: Console, rejects: list[Reject]
) -> list[Clip]:
    """Clips (all in train, for now) of those whose sound is whole and of a length that fits the text."""
    targets = [
        out / "audio" / recording.language / recording.source / f"{recording.name}.flac" for recording in recordings
    ]
    jobs = [
        (recording.path, target, recording.text or "") for recording, target in zip(recordings, targets, strict=True)
    ]
    clips: list[Clip] = []
    results = track(_map(jobs, workers), "decoding", total=len(jobs), console=console)
    for recording, target, result in zip(recordings, targets, results, strict=True):
        if isinstance(result, str):
            rejects.append(Reject(recording, result))
            continue
        clips.append(
            Clip(
                path=target,
                seconds=result,
                text=recording.text or "",
                language=recording.language,
                source=recording.source,
                licence=recording.licence,
                split="train",
                voice=recording.voice,
                where=recording.where,
            )
        )
    return clips


def _map(jobs: Sequence[tuple[Path, Path, str]], workers: int) -> Iterator[float | str]:
    if workers <= 1:
        yield from map(_make_clip, jobs)
        return
    # Not forked: the decoder's libraries have threads of their own.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_make_clip, jobs, chunksize=32)


def _make_clip(job: tuple[Path, Path, str]) -> float | str:
    """Write one FLAC unless it is there: its seconds, or why there is none."""
    path, target, text = job
    seconds = flac_seconds(target)
    if seconds is not None:
        return misfit(text, seconds) or seconds
    try:
        samples = trimmed(path)
    except UnusableAudio as error:
        return error.reason
    seconds = len(samples) / SAMPLE_RATE
    if reason := misfit(text, seconds):
        return reason
    write_flac(target, samples)
    return seconds


def misfit(text: str, seconds: float) -> str | None:
    """Why `text` cannot be what is said in a clip of that length, or None.

    CTC needs a frame for each letter and one more between two that are equal.
    """
    if seconds < MIN_SECONDS:
        return "too short"
    if seconds > MAX_SECONDS:
        return "too long"
    repeats = sum(a == b for a, b in pairwise(text))
    if len(text) > MAX_LETTERS_PER_SECOND * seconds or len(text) + repeats > FRAMES_PER_SECOND * seconds:
        return "text too long for its clip"
    if seconds > SLOW_AFTER_SECONDS and len(text) < MIN_LETTERS_PER_SECOND * seconds:
        return "text too short for its clip"
    return None


def unhurried(clips: Sequence[Clip], rejects: list[Reject]) -> list[Clip]:
    """Those not spoken much faster than their source's usual; the rate of single words and letters says nothing."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for clip in clips:
        if len(clip.text) >= 10:
            rates[clip.language, clip.source].append(len(clip.text) / clip.seconds)
    limits = {key: HASTE * median(values) for key, values in rates.items()}
    kept: list[Clip] = []
    for clip in clips:
        if len(clip.text) / clip.seconds > limits.get((clip.language, clip.source), MAX_LETTERS_PER_SECOND):
            rejects.append(_reject(clip, "text too long for its clip"))
        else:
            kept.append(clip)
    return kept


def _reject(clip: Clip, reason: str) -> Reject:
    name, where = clip.path.stem, clip.where
    recording = Recording(clip.path, name, clip.text, clip.language, clip.source, clip.licence, clip.voice, where)
    return Reject(recording, reason)


def _with_split(clips: Sequence[Clip], rejects: list[Reject]) -> list[Clip]:
    splits = split_texts((clip.language, clip.text, clip.seconds) for clip in clips)
    kept: list[Clip] = []
    for clip in clips:
        split = splits[clip.language, clip.text]
        if split is None:
            rejects.append(_reject(clip, "kept for another language's test or dev"))
        else:
            kept.append(replace(clip, split=split))
    return kept
