"""Where somebody speaks, and where nobody does for long.

A window is scaled as a whole, and so is what the first convolution of most backbones makes of it (group norm): long
silence beside speech makes the speech louder than any that was trained on. Three seconds of speech behind ten of
digital silence come out as other letters, and ``lang=auto`` takes them for another language. So long silence is cut
off, in training corpora (:mod:`adapters.training.corpus.clip_audio`) and here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from adapters.frontend import SAMPLE_RATE, Geometry

SILENCE_DBFS = -55.0
"""Nothing is speech that is nowhere louder."""
PAUSE_S = 0.8
"""Quiet for so long, and the speech before and after it are stretches of their own."""
EDGE_S = 0.4
"""Very quiet for so long at the begin or the end is no part of the speech."""
MARGIN_S = 0.12
"""Of quiet that stays with speech on either side, as in training corpora: what is soft in a word lies there."""
SHORTEST_SPEECH_S = 0.1
"""Of loud frames; a click is no speech."""

_QUIETEST_DB, _VERY_QUIET_DB, _QUIET_DB, _ABOVE_NOISE_DB = 40.0, 30.0, 20.0, 3.0
_LOUD_DB = 25.0
_SURELY_DB = 10.0
_SMALL = 0.003  # a constant part, in units of full scale
_NOTHING_DB = -90.0  # of full scale: no room is so quiet, and what was trained on had one around it


class Stretch(NamedTuple):
    """Frames from ``begin`` up to ``end``. ``loud``: it is all there is, and so far above :data:`SILENCE_DBFS` that
    nobody has to measure it again."""

    begin: int
    end: int
    speech: bool
    loud: bool = False


def stretches(samples: np.ndarray, geometry: Geometry) -> list[Stretch]:
    """Speech and long quiet by turns, all frames of (N,) float32; one stretch of speech where neither is to be told.

    A frame is quiet 40 dB below the loudest one, or 20 dB below it where it is no more than 3 dB above the background,
    the quietest tenth; at the begin and the end, where words fade away, less than ``PAUSE_S`` of it counts only where
    that is 30 dB below; what stays of it is no digital silence. Nobody speaks 25 dB below somebody else: such a stretch
    counts as quiet.
    """
    frames, hop = geometry.frames(samples.size), geometry.hop
    pause, edge, margin, shortest = (
        round(s * SAMPLE_RATE / hop) for s in (PAUSE_S, EDGE_S, MARGIN_S, SHORTEST_SPEECH_S)
    )
    whole = [Stretch(0, frames, speech=True)]
    if frames <= edge:
        return whole
    level = _levels_db(samples[: frames * hop], hop)
    loudest = float(level.max())
    if loudest < SILENCE_DBFS:
        return whole
    whole = [Stretch(0, frames, speech=True, loud=loudest >= SILENCE_DBFS + _SURELY_DB)]
    noise = _quietest_tenth(level) + _ABOVE_NOISE_DB
    loud, audible = (
        level >= max(loudest - _QUIETEST_DB, min(noise, loudest - quiet)) for quiet in (_QUIET_DB, _VERY_QUIET_DB)
    )
    heard = audible.nonzero()[0]
    found: list[Stretch] = []
    for begin, end in _runs(loud, pause):
        if loud[begin:end].sum() < shortest or level[begin:end].max() < loudest - _LOUD_DB:
            continue
        if begin < pause:  # less than a pause at the begin: all of it stays, or what is audible
            begin = int(heard[0]) if heard[0] >= edge else margin
        if end > frames - pause:
            end = int(heard[-1]) + 1 if heard[-1] < frames - edge else frames - margin
        begin, end = begin - margin, end + margin
        sound = begin + (level[begin:end] > _NOTHING_DB).nonzero()[0]
        begin, end = int(sound[0]) if begin else 0, int(sound[-1]) + 1 if end < frames else frames
        ended = found[-1].end if found else 0
        if begin > ended:
            found.append(Stretch(ended, begin, speech=False))
        found.append(Stretch(begin, end, speech=True))
    if not found or found == [(0, frames, True, False)]:
        return whole
    if found[-1].end < frames:
        found.append(Stretch(found[-1].end, frames, speech=False))
    return found


def _quietest_tenth(level: np.ndarray) -> float:
    """``np.percentile(level, 10)``, which takes ten times as long, a twelfth of what the host does for a request."""
    place = 0.1 * (level.size - 1)
    below = int(place)
    low, high = np.partition(level, (below, below + 1))[below : below + 2].tolist()
    return float(low + (high - low) * (place - below))


def _levels_db(samples: np.ndarray, hop: int) -> np.ndarray:
    """(N,) -> (N / hop,): of each hop, without the constant part. A small one is taken out of the sums, which saves a
    copy of it all; a large one would leave of faint sound nothing but how the sums were rounded."""
    hops = samples.reshape(-1, hop)
    sums = hops.sum(axis=1)
    constant = float(sums.sum(dtype=np.float64)) / samples.size
    if abs(constant) < _SMALL:
        energies = np.einsum("ij,ij->i", hops, hops) + constant * (hop * constant - 2 * sums)
    else:
        centred = hops - np.float32(constant)
        energies = np.einsum("ij,ij->i", centred, centred)
    levels: np.ndarray = 10 * np.log10(np.maximum(energies / hop, 1e-12))
    return levels


def _runs(loud: np.ndarray, pause: int) -> list[tuple[int, int]]:
    """Where (T,) bool is true, as one run over gaps shorter than ``pause``."""
    places = loud.nonzero()[0]
    breaks = (np.diff(places) > pause).nonzero()[0]
    firsts = places[np.concatenate([[0], breaks + 1])] if places.size else places
    lasts = places[np.concatenate([breaks, [places.size - 1]])] if places.size else places
    return list(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))
