"""New sentences of recorded words: `tongues data splice`.

A small corpus says few sentences, many times over, and a model learns them by heart. Clips of the train split are cut
between words, where a CTC head hears them end, and pieces of one voice are put together in another order (after Lam et
al. 2021, On-the-fly aligned data augmentation).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from adapters.backbone import load_backbone, read_normalised
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE, few_widths, pad
from adapters.training.alignment import align
from adapters.training.backbone_folder import read_head
from adapters.training.corpus.clip_audio import write_flac
from adapters.training.data import AudioCache, epoch_batches
from adapters.training.manifest import Clip, read_manifest, write_manifest
from adapters.training.precision import tune_cpu
from adapters.vocab import Vocab

SOURCE = "spliced"
_BATCH_S = 60
_MOST_WORDS = 3
_SHORTEST_S, _LONGEST_S = 1.5, 7.0
_FADE = SAMPLE_RATE // 100


@dataclass(frozen=True)
class Piece:
    """Words of one clip: its number, and from which sample up to which they are said."""

    clip: int
    begin: int
    end: int
    words: tuple[str, ...]


def splice(
    manifest: Path,
    backbone: Path,
    out: Path,
    languages: Sequence[str] = (),
    *,
    minutes: float = 60.0,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Clip]:
    """Write the manifest ``out`` of spliced clips; FLACs lie in audio/ beside it.

    ``backbone``: a folder with a CTC head, which hears where words end. ``languages``: those of the manifest, if left
    out; at most ``minutes`` are made in each, and five times what was recorded. Raises
    :class:`~adapters.errors.DataError` for a language without recorded train clips, and what reading a backbone and a
    manifest raises.
    """
    clips = [clip for clip in read_manifest(manifest) if clip.split == "train" and not clip.synthetic]
    chosen = tuple(languages) or tuple(sorted({clip.language for clip in clips}))
    if without := sorted(set(chosen) - {clip.language for clip in clips}):
        raise DataError(f"{manifest}: no recorded train clips of {', '.join(without)}")
    clips = [clip for clip in clips if clip.language in chosen]
    tune_cpu()
    cache = AudioCache(clips, manifest.parent / "cache")
    pieces = _pieces(cache, backbone, progress)
    made: list[Clip] = []
    for language in chosen:
        mine = [piece for piece in pieces if clips[piece.clip].language == language]
        recorded = sum(clip.seconds for clip in clips if clip.language == language)
        made += _clips(mine, cache, out.parent, min(60 * minutes, 5 * recorded), np.random.default_rng(seed))
    write_manifest(out, made)
    return made


@torch.inference_mode()
def _pieces(cache: AudioCache, backbone: Path, progress: Callable[[int, int], None]) -> list[Piece]:
    """Each word of each clip that can be told from those beside it."""
    encoder, normalised = load_backbone(backbone), read_normalised(backbone)
    head, vocab = read_head(backbone)
    weight, bias = head["weight"].float(), head["bias"].float()
    lengths = [cache.length(index) for index in range(len(cache))]
    found: list[Piece] = []
    done = 0
    for rows in epoch_batches(lengths, _BATCH_S * SAMPLE_RATE, seed=0, epoch=0):
        audio = pad([cache.samples(row) for row in rows], normalised=normalised, width=few_widths)
        frames = encoder.trunk(audio, encoder.layer_count)
        emissions = F.linear(encoder.hidden(frames, encoder.bare), weight, bias).log_softmax(dim=2).numpy()
        for place, row in enumerate(rows):
            heard = emissions[place, : encoder.geometry.frames(lengths[row])]
            found += _words(row, cache.clips[row].text, heard, vocab, encoder.geometry.hop, lengths[row])
        done += len(rows)
        progress(done, len(cache))
    return sorted(found, key=lambda piece: (piece.clip, piece.begin))


def _words(clip: int, text: str, emissions: np.ndarray, vocab: Vocab, hop: int, length: int) -> list[Piece]:
    """Cut where the pause between two words is halfway."""
    try:
        labels = vocab.encode(text)
    except DataError:
        return []
    spoken = align(emissions, labels, vocab.blank)
    if spoken is None:
        return []
    words = text.split()
    cuts, place = [0], 0
    for word in words[:-1]:
        place += len(word)
        cuts.append((spoken[place - 1][1] + spoken[place + 1][0]) * hop // 2)
        place += 1
    cuts.append(length)
    ends = zip(cuts, cuts[1:], words, strict=False)
    return [Piece(clip, begin, end, (word,)) for begin, end, word in ends if end > begin]


def _clips(
    pieces: Sequence[Piece], cache: AudioCache, folder: Path, seconds: float, rng: np.random.Generator
) -> list[Clip]:
    voices: dict[str, list[Piece]] = {}
    for piece in pieces:
        clip = cache.clips[piece.clip]
        voices.setdefault(f"{clip.source}\0{clip.voice}", []).append(piece)
    names = sorted(name for name, mine in voices.items() if len(mine) >= 20)
    if not names:
        return []
    sizes = np.array([sum(piece.end - piece.begin for piece in voices[name]) for name in names], dtype=float)
    made: dict[Path, Clip] = {}
    total = 0.0
    while total < seconds:
        mine = voices[names[int(rng.choice(len(names), p=sizes / sizes.sum()))]]
        wanted = rng.uniform(_SHORTEST_S, _LONGEST_S) * SAMPLE_RATE
        chosen: list[Piece] = []
        while sum(piece.end - piece.begin for piece in chosen) < wanted:
            start, most = int(rng.integers(len(mine))), int(rng.integers(1, _MOST_WORDS + 1))
            chosen += [piece for piece in mine[start : start + most] if piece.clip == mine[start].clip]
        text = " ".join(word for piece in chosen for word in piece.words)
        clip = cache.clips[chosen[0].clip]
        name = hashlib.sha256("\0".join(f"{p.clip} {p.begin} {p.end}" for p in chosen).encode()).hexdigest()[:16]
        path = folder / "audio" / clip.language / SOURCE / f"{name}.flac"
        samples = _joined([cache.samples(piece.clip)[piece.begin : piece.end] for piece in chosen])
        length = round(samples.size / SAMPLE_RATE, 3)
        if path not in made:  # of few pieces the same may be chosen twice
            write_flac(path, samples)
            made[path] = replace(clip, path=path, seconds=length, text=text, source=SOURCE)
        total += length
    return list(made.values())


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One after the other, each faded in and out for a hundredth of a second."""
    faded = []
    for part in parts:
        samples, fade = part.copy(), min(_FADE, part.size // 2)
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        samples[:fade] *= ramp
        samples[part.size - fade :] *= ramp[::-1]
        faded.append(samples)
    return np.concatenate(faded)
