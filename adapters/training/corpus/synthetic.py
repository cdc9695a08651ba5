"""A corpus that nobody spoke: `tongues data synthesise`.

Sentences of the packages in the voices of eSpeak NG, and of other synthesizers (:mod:`.voices`), beside recordings. A
text that the recordings keep for dev or test is not synthesised in any language, so nothing that is tested on is learnt
here. A language without recordings gets splits of its own.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from adapters.errors import DataError
from adapters.training.corpus.build import misfit
from adapters.training.corpus.clip_audio import SAMPLE_RATE, speech_bounds, write_flac
from adapters.training.corpus.packages import unpacked_tree
from adapters.training.corpus.split import split_texts
from adapters.training.corpus.synthesis import VARIANTS, Spoken, Synthesizer, Voice
from adapters.training.corpus.text import ALPHABETS
from adapters.training.corpus.texts import MORE_PACKAGES, PACKAGES, more_sentences, sentences
from adapters.training.corpus.voices import CommandVoice, Unspoken
from adapters.training.manifest import Clip, read_manifest, write_manifest

SOURCE = "espeak"
_LICENCE = "GPL-2.0-or-later"  # of the texts


@dataclass(frozen=True)
class _Job:
    text: str
    language: str
    voice: Voice | CommandVoice
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
    voices: Sequence[CommandVoice] = (),
    each: int = 1000,
    workers: int = 2,
    announce: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Clip]:
    """Write the manifest ``out`` of synthetic clips in ``languages``, ``takes`` voices of eSpeak NG a sentence, and of
    ``voices`` those that speak them, each up to ``each`` sentences of its own; FLACs lie in audio/ beside it. What an
    earlier manifest there has is kept: no synthesizer speaks twice in quite the same way.
    ``most``: with sentences of a game's stories besides, up to so many in all.

    ``recorded``: the manifest of the recordings. ``packages``: as for :func:`adapters.training.corpus.build.build`.
    Raises :class:`~adapters.errors.DataError` for a language whose letters are not known or that has no sentences, and
    for a voice that says none of them.
    """
    if unknown := sorted(set(languages) - ALPHABETS.keys()):
        raise DataError(f"no alphabet for {', '.join(unknown)}; there are {', '.join(ALPHABETS)}")
    recordings = read_manifest(recorded)
    tested = {clip.text for clip in recordings if clip.split != "train"}
    known = {clip.path: clip for clip in read_manifest(out)} if out.exists() else {}
    known = {path: clip for path, clip in known.items() if clip.text not in tested and path.exists()}
    jobs = []
    for language in languages:
        texts = untested(recorded, language, packages, most=most, announce=announce)
        jobs += [_job(text, language, take, out.parent) for text in texts for take in range(takes)]
        for voice in voices:
            if voice.language == language:
                jobs += _jobs_of(voice, texts, each, out.parent)
    missing = [job for job in jobs if job.path not in known]
    made: list[Clip] = []
    unsaid: dict[str, list[str]] = {}
    for done, (job, taken) in enumerate(_map(missing, workers), start=1):
        progress(len(jobs) - len(missing) + done, len(jobs))
        if isinstance(taken, _Take):
            made.append(_clip(job, taken))
        else:
            unsaid.setdefault(_name(job), []).append(taken)
    made += known.values()
    without = {clip.language for clip in made} - {clip.language for clip in recordings}
    splits = split_texts((clip.language, clip.text, clip.seconds) for clip in made if clip.language in without)
    found = []
    for clip in made:
        split = splits[clip.language, clip.text] if clip.language in without else "train"
        if split is not None:
            found.append(replace(clip, split=split))
    write_manifest(out, sorted(found, key=lambda clip: (clip.language, clip.path)))
    silent = {voice.name for voice in voices} - {clip.voice for clip in made}
    _tell(unsaid, Counter(map(_name, missing)), silent, announce)
    return read_manifest(out)


def _tell(
    unsaid: Mapping[str, list[str]], asked: Mapping[str, int], silent: Set[str], announce: Callable[[str], None]
) -> None:
    """Of sentences that have no clip, by voice. Raises :class:`~adapters.errors.DataError` for ``silent``, voices that
    have none at all; what the others say is in the manifest by then."""
    for name, reasons in sorted(unsaid.items()):
        announce(f"{name}: {len(reasons)} of {asked[name]} sentences left out; the last: {reasons[-1]}")
    if never := sorted(unsaid.keys() & silent):
        raise DataError(
            f"not a sentence is said by {', '.join(never)} ({unsaid[never[0]][-1]}): try the command by hand, and "
            "leave out of the file what is not installed"
        )


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
    name = _hash(language, text, str(take))
    chance = random.Random(name)
    voice = Voice(chance.choice(VARIANTS), chance.randint(130, 190), chance.randint(25, 75), chance.randint(35, 65))
    return _Job(text, language, voice, folder / "audio" / language / SOURCE / f"{name}.flac")


def _jobs_of(voice: CommandVoice, texts: Iterable[str], most: int, folder: Path) -> list[_Job]:
    """Sentences that follow from the voice's name, so that another says others."""
    names = {text: _hash(voice.name, text) for text in texts}
    chosen = sorted(names, key=names.__getitem__)[:most]
    place = folder / "audio" / voice.language / voice.source
    return [_Job(text, voice.language, voice, place / f"{names[text]}.flac") for text in chosen]


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _name(job: _Job) -> str:
    return job.voice.name if isinstance(job.voice, CommandVoice) else f"{SOURCE}-{job.language}-{job.voice.variant}"


def _clip(job: _Job, take: _Take) -> Clip:
    source = job.voice.source if isinstance(job.voice, CommandVoice) else SOURCE
    clip = Clip(job.path, take.seconds, job.text, job.language, source, _LICENCE, "train", _name(job), synthetic=True)
    return replace(clip, phones=take.phones)


def _map(jobs: Sequence[_Job], workers: int) -> Iterable[tuple[_Job, _Take | str]]:
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from zip(jobs, pool.map(_make, jobs, chunksize=8), strict=True)


def _make(job: _Job) -> _Take | str:
    """Write one FLAC: how long it is and its phones, or why there is none."""
    try:
        spoken = _speak(job)
    except Unspoken as error:
        return str(error)
    begin, end = speech_bounds(spoken.samples)
    seconds, begin_s = (end - begin) / SAMPLE_RATE, begin / SAMPLE_RATE
    if (reason := misfit(job.text, seconds)) is not None:
        return reason
    write_flac(job.path, spoken.samples[begin:end])
    phones = [(phone.name, min(max(phone.start_s - begin_s, 0.0), seconds)) for phone in spoken.phones]
    return _Take(seconds, tuple(phones))


def _speak(job: _Job) -> Spoken:
    if isinstance(job.voice, CommandVoice):
        return Spoken(job.voice.speak(job.text), ())
    return _synthesizer().speak(job.text, job.language, job.voice)


@cache
def _synthesizer() -> Synthesizer:
    """One for each process."""
    return Synthesizer()
