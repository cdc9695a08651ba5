"""Clips for training: decoded once into one flat file, then drawn as shuffled batches of nearly equal length.

Everything random follows from a seed, the epoch and the batch, never from a generator's history, so a resumed run
sees exactly the batches that an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from adapters.durable import naming
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE, Geometry
from adapters.training.clip_samples import clip_samples
from adapters.training.losses import needed_frames
from adapters.training.manifest import Clip, write_text_atomically
from adapters.vocab import DELIMITER, Vocab

_SHORTEST_S = 0.1  # faster by some, it still has a frame
LONGEST_S = 60.0
"""Of a clip to train on: attention is over all of it at once."""
_DECODED = 256  # clips at a time, by as many threads as there are cores


class AudioCache:
    """The samples of many clips in one memory-mapped int16 file, keyed by what the clips are.

    Decoding FLAC again for every epoch costs more than reading; the file is written beside the manifest under a name
    that follows from the clips' paths, sizes and times, so a changed corpus makes a new one. ``key`` follows from the
    samples, clip by clip, so it stays when a corpus is copied.
    """

    def __init__(self, clips: Sequence[Clip], folder: Path) -> None:
        """Raises :class:`~adapters.errors.DataError` for a file that is missing, cannot be read, is not 16 kHz mono, or
        too short to train on."""
        self.clips = list(clips)
        state = hashlib.sha256(b"2")  # of what the index holds
        for clip in self.clips:
            try:
                found = clip.path.stat()
            except OSError as error:
                raise clip.fault(f"{clip.path}: listed in the manifest, but there is no such file") from error
            place = os.path.relpath(clip.path, folder.parent)
            state.update(f"{place}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        path = folder / f"samples-{state.hexdigest()[:16]}.i16"
        index = path.with_suffix(".json")
        told = _whole(path, index)
        if told is None:
            self._decode(path, index)
            told = json.loads(index.read_text())
        self.key: str = told["key"]
        self._ends = np.array(told["ends"], dtype=np.int64)
        self._samples = np.memmap(path, dtype=np.int16, mode="r") if self.clips else np.zeros(0, np.int16)

    def __len__(self) -> int:
        return len(self.clips)

    def samples(self, index: int) -> np.ndarray:
        """Clip ``index`` as (N,) float32 in -1..1."""
        start = self._ends[index - 1] if index else 0
        return self._samples[start : self._ends[index]].astype(np.float32) / 32768.0

    def length(self, index: int) -> int:
        """Samples of clip ``index``."""
        return int(self._ends[index] - (self._ends[index - 1] if index else 0))

    def _decode(self, path: Path, index: Path) -> None:
        """Several processes may do so at once: each writes a file of its own."""
        ends, total, key = [], 0, hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
            with naming(path), temporary.open("wb") as out, threads:
                for begin in range(0, len(self.clips), _DECODED):
                    for samples in threads.map(_decoded, self.clips[begin : begin + _DECODED]):
                        out.write(samples.tobytes())
                        total += samples.size
                        ends.append(total)
                        key.update(samples.size.to_bytes(8, "little") + samples.tobytes())
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        write_text_atomically(index, json.dumps({"key": key.hexdigest()[:16], "ends": ends}))


def _whole(path: Path, index: Path) -> dict[str, Any] | None:
    """What the index says, where both are there and the samples are all that it knows of."""
    if not (index.exists() and path.exists()):
        return None
    told: dict[str, Any] = json.loads(index.read_text())
    return told if path.stat().st_size == 2 * (told["ends"] or [0])[-1] else None


def _decoded(clip: Clip) -> np.ndarray:
    """(N,) int16."""
    samples = clip_samples(clip)
    if samples.size < _SHORTEST_S * SAMPLE_RATE:
        raise clip.fault(f"{clip.path}: {samples.size} samples; training takes at least {_SHORTEST_S} s")
    if samples.size > LONGEST_S * SAMPLE_RATE:
        raise clip.fault(
            f"{clip.path}: {samples.size / SAMPLE_RATE:.0f} s; training takes {LONGEST_S:.0f} s at most: "
            "cut it at pauses, and its text with it"
        )
    return (samples * 32768.0).clip(-32768, 32767).astype(np.int16)


def vocabulary(clips: Sequence[Clip]) -> Vocab:
    """Blank, delimiter and every character that ``clips`` say. Raises :class:`~adapters.errors.DataError`, naming the
    line, for a text that holds the delimiter."""
    for clip in clips:
        if DELIMITER in clip.text:
            raise clip.fault(
                f"{DELIMITER!r} parts words in a vocabulary, so that no text may hold it: {clip.text[:80]!r}"
            )
    return Vocab.from_texts(clip.text for clip in clips)


def encoded(cache: AudioCache, vocab: Vocab, geometry: Geometry) -> list[list[int]]:
    """The label ids of each clip. Raises :class:`~adapters.errors.DataError`, naming the line, for a character that the
    vocabulary lacks, and for texts that are too long for their clips: CTC needs a frame for each letter, and one
    between two of a kind."""
    labels, too_long = [], []
    for index, clip in enumerate(cache.clips):
        try:
            ids = vocab.encode(clip.text)
        except DataError as error:
            raise clip.fault(f"{clip.path}: {error}") from error
        needed = needed_frames(ids)
        frames = geometry.frames(cache.length(index))
        if needed > frames:
            too_long.append(clip.fault(f"{clip.path}: a text that needs {needed} frames, in a clip of {frames}"))
        labels.append(ids)
    if too_long:
        more = f" (and {len(too_long) - 1} more of this kind)" if len(too_long) > 1 else ""
        raise DataError(f"{too_long[0]}{more}")
    return labels


def text_key(clips: Sequence[Clip]) -> str:
    """What the clips say, and in which languages, as 16 hex digits."""
    lines = "".join(f"{clip.language}\0{clip.text}\n" for clip in clips)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def epoch_batches(
    lengths: Sequence[int], max_samples: int, *, seed: int, epoch: int, weights: Sequence[float] | None = None
) -> list[list[int]]:
    """The batches of one epoch: lists of clip indices, each at most ``max_samples`` when padded to its longest.

    Clips are sorted by a length blurred at random, so that rows of a batch are alike but never the same company, and
    the batches are shuffled. ``weights``: draw so many of each clip in expectation (1.0 each without it).
    """
    rng = np.random.default_rng([seed, epoch])
    chosen = np.arange(len(lengths))
    if weights is not None:
        w = np.asarray(weights)
        chosen = np.repeat(chosen, np.floor(w + rng.random(w.size)).astype(int))
    blurred = np.asarray(lengths)[chosen] * np.exp(rng.normal(0, 0.1, chosen.size))
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = 0
    for index in chosen[np.argsort(blurred, kind="stable")]:
        longest_with = max(longest, lengths[index])
        if batch and longest_with * (len(batch) + 1) > max_samples:
            batches.append(batch)
            batch, longest_with = [], lengths[index]
        batch.append(int(index))
        longest = longest_with
    if batch:
        batches.append(batch)
    rng.shuffle(batches)
    return batches


def language_weights(clips: Sequence[Clip], power: float) -> list[float]:
    """How often to draw each clip: more where its language has fewer seconds, at most four times."""
    seconds: dict[str, float] = {}
    for clip in clips:
        seconds[clip.language] = seconds.get(clip.language, 0.0) + clip.seconds
    most = max(seconds.values())
    return [min((most / seconds[clip.language]) ** power, 4.0) for clip in clips]


def weights_beside(clips: Sequence[Clip], others: Sequence[Clip], power: float, share: float) -> list[float]:
    """How often to draw each of ``clips``, as :func:`language_weights`, and of ``others``: all alike, so that ``share``
    of the seconds are theirs."""
    weights = language_weights(clips, power)
    drawn_s = sum(weight * clip.seconds for weight, clip in zip(weights, clips, strict=True))
    others_s = sum(clip.seconds for clip in others)
    return weights + [drawn_s * share / (1 - share) / others_s] * len(others) if others else weights


def some_of_each(clips: Sequence[Clip], count: int) -> list[Clip]:
    """The first ``count`` clips of each language that last a second or longer."""
    by_language: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.seconds >= 1:
            by_language.setdefault(clip.language, []).append(clip)
    return [clip for group in by_language.values() for clip in group[:count]]
