"""A corpus that nobody spoke: `tongues data synthesise`.

Sentences of the packages in the voices of a synthesizer, beside recordings. A text that the recordings keep for dev or
test is not synthesised in any language, so nothing that is tested on is learnt here. A language without recordings gets
splits of its own.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from adapters.errors import DataError
from adapters.training.corpus.build import misfit
from adapters.training.corpus.clip_audio import SAMPLE_RATE, speech_bounds, write_flac
from adapters.training.corpus.packages import unpacked_tree
from adapters.training.corpus.split import split_texts
from adapters.training.corpus.synthesis import VARIANTS, Synthesizer, Voice
from adapters.training.corpus.text import ALPHABETS
from adapters.training.corpus.texts import MORE_PACKAGES, PACKAGES, more_sentences, sentences
from adapters.training.manifest import Clip, read_manifest, write_manifest

SOURCE = "espeak"
_LICENCE = "GPL-2.0-or-later"  # of the texts


@dataclass(frozen=True)
class _Job:
    text: str
    language: str
    voice: Voice
    path: Path


@dataclass(frozen=True)
class _Take:
    seconds: float
    phones: tuple[tuple[str, float], ...]


def synthesise(
    recorded: Path,
    out: Path,
    languages: Sequence[str],
    packages: Path | None = None,
    *,
    takes: int = 1,
    most: int | None = None,
    workers: int = 2,
    announce: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Clip]:
    """Write the manifest ``out`` of synthetic clips in ``languages``, ``takes`` voices a sentence; FLACs lie in audio/
    beside it. What an earlier manifest there has is kept: the synthesizer does not speak twice in quite the same way.
    ``most``: with sentences of a game's stories besides, up to so many in all.

    ``recorded``: the manifest of the recordings. ``packages``: as for :func:`adapters.training.corpus.build.build`.
    Raises :class:`~adapters.errors.DataError` for a language whose letters are not known or that has no sentences.
    """
    if unknown := sorted(set(languages) - ALPHABETS.keys()):
        raise DataError(f"no alphabet for {', '.join(unknown)}; there are {', '.join(ALPHABETS)}")
    clips = read_manifest(recorded)
    known = {clip.path: clip for clip in read_manifest(out)} if out.exists() else {}
    jobs = []
    for language in languages:
        texts = untested(recorded, language, packages, most=most, announce=announce)
        jobs += [_job(text, language, take, out.parent) for text in texts for take in range(takes)]
    kept = [known[job.path] for job in jobs if job.path in known and job.path.exists()]
    made = [*kept]
    missing = [job for job in jobs if job.path not in known or not job.path.exists()]
    for done, (job, take) in enumerate(_map(missing, workers), start=1):
        progress(len(kept) + done, len(jobs))
        if take is not None:
            made.append(_clip(job, take))
    tested = {clip.text for clip in clips if clip.split != "train"}  # by what is recorded now
    others = (clip for clip in known.values() if clip.language not in languages and clip.text not in tested)
    made += [clip for clip in others if clip.path.exists()]
    without = {clip.language for clip in made} - {clip.language for clip in clips}
    splits = split_texts((clip.language, clip.text, clip.seconds) for clip in made if clip.language in without)
    found = []
    for clip in made:
        split = splits[clip.language, clip.text] if clip.language in without else "train"
        if split is not None:
            found.append(replace(clip, split=split))
    write_manifest(out, sorted(found, key=lambda clip: (clip.language, clip.path)))
    return read_manifest(out)


def untested(
    recorded: Path,
    language: str,
    packages: Path | None = None,
    *,
    most: int | None = None,
    announce: Callable[[str], None] = print,
) -> list[str]:
    """Sentences of the packages in ``language`` that the recordings do not keep for dev or test, in any language.
    ``most``: with a game's besides, where there are fewer, up to so many in all.

    Raises :class:`~adapters.errors.DataError` where there are none."""
    tested = {clip.text for clip in read_manifest(recorded) if clip.split != "train"}
    wanted = PACKAGES if most is None else PACKAGES + MORE_PACKAGES
    root = unpacked_tree(wanted, recorded.parent / ".packages", packages, announce=announce)
    texts = [text for text in sentences(root, language) if text not in tested]
    if most is not None:
        known = {*texts, *tested}
        texts += [text for text in more_sentences(root, language) if text not in known][: max(0, most - len(texts))]
    if not texts:
        raise DataError(f"{root}: no sentences in {language!r}")
    return texts


def _job(text: str, language: str, take: int, folder: Path) -> _Job:
    """The voice follows from the text and the take, whatever else is made."""
    name = hashlib.sha256(f"{language}\0{text}\0{take}".encode()).hexdigest()[:16]
    chance = random.Random(name)
    voice = Voice(chance.choice(VARIANTS), chance.randint(130, 190), chance.randint(25, 75), chance.randint(35, 65))
    return _Job(text, language, voice, folder / "audio" / language / SOURCE / f"{name}.flac")


def _clip(job: _Job, take: _Take) -> Clip:
    voice = f"{SOURCE}-{job.language}-{job.voice.variant}"
    clip = Clip(job.path, take.seconds, job.text, job.language, SOURCE, _LICENCE, "train", voice, synthetic=True)
    return replace(clip, phones=take.phones)


def _map(jobs: Sequence[_Job], workers: int) -> Iterable[tuple[_Job, _Take | None]]:
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from zip(jobs, pool.map(_make, jobs, chunksize=32), strict=True)


def _make(job: _Job) -> _Take | None:
    """Write one FLAC: how long it is and its phones, or None where its text does not fit it."""
    spoken = _synthesizer().speak(job.text, job.language, job.voice)
    begin, end = speech_bounds(spoken.samples)
    seconds, begin_s = (end - begin) / SAMPLE_RATE, begin / SAMPLE_RATE
    if misfit(job.text, seconds) is not None:
        return None
    write_flac(job.path, spoken.samples[begin:end])
    phones = [(phone.name, min(max(phone.start_s - begin_s, 0.0), seconds)) for phone in spoken.phones]
    return _Take(seconds, tuple(phones))


@cache
def _synthesizer() -> Synthesizer:
    """One for each process."""
    return Synthesizer()
