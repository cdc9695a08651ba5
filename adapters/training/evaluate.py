"""How well the adapters of a model do on a split: through the windows, the bank and the decoding that serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch

from adapters.backbone import Quantise, fingerprint, load_backbone, read_normalised
from adapters.bank import Bank, Seat
from adapters.ctc import BestPath, transcript
from adapters.decoding import Decoding
from adapters.encoder import Encoder
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE
from adapters.heap import keep_freed_memory
from adapters.language import language_key
from adapters.loaded import LoadedAdapter
from adapters.recogniser import Recogniser
from adapters.registry import Registry
from adapters.store import AdapterStore
from adapters.training.augmentation import through_telephone
from adapters.training.clip_samples import clip_samples
from adapters.training.manifest import SPLITS, Clip, read_manifest
from adapters.training.precision import check_device
from adapters.vocab import Vocab
from adapters.windows import Window, cut

_BATCH_FRAMES = 1_600


@dataclass(frozen=True)
class Candidate:
    """An adapter to evaluate: its seat in the bank, and what its head can say."""

    seat: Seat
    vocab: Vocab


@dataclass(frozen=True)
class Said:
    """A clip and what was heard in it."""

    clip: Clip
    heard: str


@dataclass(frozen=True)
class Rates:
    """Error rates over ``clips`` clips of ``seconds`` seconds, as fractions of what was to be said."""

    cer: float
    wer: float
    clips: int
    seconds: float

    def metrics(self) -> dict[str, float]:
        """What an adapter's record says of them."""
        return {"cer": round(self.cer, 4), "wer": round(self.wer, 4)}


def evaluate(
    models: Path,
    manifest: Path,
    split: str = "test",
    *,
    languages: Sequence[str] = (),
    adapter: str | None = None,
    sources: Sequence[str] = (),
    telephone: bool = False,
    device: str = "cpu",
    quantise: Quantise = "none",
    beam: bool = False,
    announce: Callable[[str], None] = lambda line: None,
) -> dict[str, Rates]:
    """CER and WER a language of the adapters in ``models`` over a split of ``manifest``.

    ``languages``: only these, all that have an adapter otherwise; ``adapter``: this one instead of the default;
    ``sources``: only clips of these sources; ``telephone``: through an 8 kHz mu-law line first; ``quantise``: the
    backbone, as the service would; ``beam``: as ``decode=beam`` does, with the language models that adapters bring;
    ``announce`` is told of adapters that are left out because they cannot be worn. Raises
    :class:`~adapters.errors.DataError` where that leaves no clip, and what registry and store raise.
    """
    if split not in SPLITS:
        raise DataError(f"{split!r} is not a split; there are {', '.join(SPLITS)}")
    keep_freed_memory()
    check_device(device)
    encoder = load_backbone(models / "backbone", device=device, quantise=quantise)
    store = AdapterStore(models / "adapters")
    registry = Registry([store], fingerprint(models / "backbone"), encoder.size)
    for refused in registry.snapshot.refused:
        announce(f"left out: {refused.error}")
    clips = [clip for clip in read_manifest(manifest) if clip.split == split]
    there = ", ".join(sorted({clip.source for clip in clips})) or "none"
    of = f" from {', '.join(sources)}; sources there are {there}" if sources else ""
    clips = [clip for clip in clips if not sources or clip.source in sources]
    asked_for_all = not languages and adapter is None
    if adapter is not None and not languages:
        languages = [registry.resolve(name=adapter).record.language]
    elif not languages:
        languages = sorted({language_key(clip.language) or "" for clip in clips} & registry.snapshot.languages.keys())
    adapters = {language_key(tag): registry.resolve(language=tag, name=adapter) for tag in languages}
    spoken = {clip.language: adapters.get(language_key(clip.language)) for clip in clips}
    chosen = {tag: registered for tag, registered in spoken.items() if registered is not None}
    if asked_for_all:
        for tag in sorted(spoken.keys() - chosen.keys()):
            count = sum(clip.language == tag for clip in clips)
            announce(f"left out: {count} clips of {tag!r}, for which there is no adapter")
    clips = [clip for clip in clips if clip.language in chosen]
    keys = {language_key(clip.language) for clip in clips}
    if without := [tag for tag in languages if language_key(tag) not in keys]:
        raise DataError(f"{manifest}: no {split} clips of {', '.join(without)}{of}")
    if not clips:
        raise DataError(f"{manifest}: no {split} clips of a language that has an adapter in {models}{of}")
    bank = Bank(encoder.size, limit=max(8, len(chosen)), device=torch.device(device))
    loaded = {tag: registry.load(registered) for tag, registered in chosen.items()}
    candidates = {tag: Candidate(bank.seat(one.record.config, one.tensors), one.vocab) for tag, one in loaded.items()}
    paths = hear_paths(
        clips,
        candidates,
        encoder,
        bank,
        normalised=read_normalised(models / "backbone"),
        samples=(lambda clip: through_telephone(clip_samples(clip))) if telephone else None,
        emissions=beam,
    )
    frame_s = encoder.geometry.hop / SAMPLE_RATE
    by_language: dict[str, list[Said]] = {}
    for one in decoded(clips, paths, loaded, Decoding(beam), frame_s):
        by_language.setdefault(one.clip.language, []).append(one)
    return {tag: error_rates(by_language[tag]) for tag in sorted(by_language)}


def hear(
    clips: Sequence[Clip],
    candidates: dict[str, Candidate],
    encoder: Encoder,
    bank: Bank,
    *,
    normalised: bool = True,
    samples: Callable[[Clip], np.ndarray] | None = None,
) -> list[Said]:
    """Transcribe ``clips`` greedily; as :func:`hear_paths` otherwise."""
    paths = hear_paths(clips, candidates, encoder, bank, normalised=normalised, samples=samples)
    frame_s = encoder.geometry.hop / SAMPLE_RATE
    return [
        Said(clip, transcript(path, candidates[clip.language].vocab, frame_s=frame_s, duration_s=clip.seconds).text)
        for clip, path in zip(clips, paths, strict=True)
    ]


def decoded(
    clips: Sequence[Clip],
    paths: Sequence[BestPath],
    adapters: Mapping[str, LoadedAdapter],
    decoding: Decoding,
    frame_s: float,
) -> list[Said]:
    """What ``decoding`` makes of each clip's path, in the adapter of its language."""
    return [
        Said(clip, decoding(path, adapters[clip.language], frame_s=frame_s, duration_s=clip.seconds).text)
        for clip, path in zip(clips, paths, strict=True)
    ]


def hear_paths(
    clips: Sequence[Clip],
    candidates: dict[str, Candidate],
    encoder: Encoder,
    bank: Bank,
    *,
    normalised: bool = True,
    samples: Callable[[Clip], np.ndarray] | None = None,
    emissions: bool = False,
) -> list[BestPath]:
    """The path of each of ``clips`` in the adapter of its language, rows of all languages mixed in batches.

    ``samples`` reads a clip, or changes it on the way (the telephone band, say). ``emissions``: with the probabilities
    of all tokens.
    Raises :class:`~adapters.errors.DataError` for a clip that cannot be read or whose language has no candidate.
    """
    read = samples or clip_samples
    pieces: list[tuple[int, Window]] = []
    for index, clip in enumerate(clips):
        if clip.language not in candidates:
            raise DataError(f"{clip.path}: no adapter for {clip.language}; there are {', '.join(sorted(candidates))}")
        pieces += [(index, window) for window in cut([read(clip)], encoder.geometry)]
    paths: list[dict[int, BestPath]] = [{} for _ in clips]
    recogniser = Recogniser(encoder, bank, normalised=normalised)
    for batch in _batches(pieces, encoder):
        loud = [(index, window) for index, window in batch if not window.silent]
        for index, window in batch:
            paths[index][window.index] = BestPath.pause(window.keep, candidates[clips[index].language].vocab)
        if loud:
            windows = [window for _, window in loud]
            seats = [candidates[clips[index].language].seat for index, _ in loud]
            audio = recogniser.prepare(windows)
            wanted = range(len(windows)) if emissions else ()
            found = recogniser.whole(audio, windows, range(len(windows)), seats, wanted).result()
            for (index, window), path in zip(loud, found, strict=True):
                paths[index][window.index] = path
    return [BestPath.join(found[number] for number in sorted(found)) for found in paths]


def error_rates(said: Sequence[Said]) -> Rates:
    """CER and WER with jiwer, pooled over the clips: all edits over all that was to be said."""
    truth, heard = [s.clip.text for s in said], [s.heard for s in said]
    return Rates(
        cer=float(jiwer.cer(truth, heard)),
        wer=float(jiwer.wer(truth, heard)),
        clips=len(said),
        seconds=sum(s.clip.seconds for s in said),
    )


def _batches(pieces: list[tuple[int, Window]], encoder: Encoder) -> list[list[tuple[int, Window]]]:
    batches: list[list[tuple[int, Window]]] = []
    batch: list[tuple[int, Window]] = []
    for piece in sorted(pieces, key=lambda piece: piece[1].samples.size):
        frames = encoder.geometry.frames(piece[1].samples.size)
        if batch and frames * (len(batch) + 1) > _BATCH_FRAMES:
            batches.append(batch)
            batch = []
        batch.append(piece)
    return [*batches, batch] if batch else batches
