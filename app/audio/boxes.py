"""The boxes of an MP4 or QuickTime file, walked as FFmpeg walks them, and how much their tables unfold to in memory.

FFmpeg makes an index of all samples when it opens a file, before anything is decoded. What it descends into, and what
it makes of each table, is from libavformat/mov.c of FFmpeg 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np

from adapters.errors import BrokenAudio, NoAudioTrack

#: entries of FFmpeg's index, each of 24 bytes and 12 of its time: four hours of pictures and sound are 1.5 million
MAX_ENTRIES = 2_000_000
_MAX_BOXES = 500_000
_MAX_DEPTH = 10
_MAX_RUNS = 1_000_000
_MAX_DESCRIPTION_BYTES = 1 << 19
_BLOCK_BYTES = 1 << 16
_MUST_BE_WHOLE = frozenset({b"mdat", b"moov", b"moof"})
_NESTED = frozenset(
    {b"dinf", b"edts", b"ilst", b"mdia", b"minf", b"moof", b"moov", b"mvex", b"schi", b"sinf", b"stbl", b"traf",
     b"trak", b"tref", b"udta"}
)  # fmt: skip
# Where the count stands behind the head of the box, by its version where that matters.
_COUNT_AT = {b"stsz": (8,), b"stz2": (8,), b"trun": (4,), b"keys": (4,), b"sgpd": (8, 12, 16)}
_OF_PICTURES = frozenset({b"iinf", b"iloc", b"iprp"})
_OPAQUE = frozenset({b"stsd", b"wave"})  # boxes stand in there at places that the codec decides
_READ = _OPAQUE | _OF_PICTURES | _COUNT_AT.keys() | {
    b"trak", b"elst", b"stts", b"ctts", b"hdlr", b"stco", b"co64", b"stsc", b"moof", b"sidx", b"cmov"
}  # fmt: skip
_TELLING = re.compile(b"|".join(_READ - _OPAQUE - {b"keys"} | {b"mdat", b"moov"}))
_LEAST_DESCRIPTION_BYTES = 86  # what FFmpeg reads of one, whatever its size says
_LEAST_PIECE = 160  # samples: FFmpeg cuts chunks into pieces of so many or more


class Box(NamedTuple):
    """Its content lies from ``start`` to ``end``, which is that of the box around it at most; ``stated_end`` is not."""

    kind: bytes
    start: int
    end: int
    stated_end: int
    head_bytes: int
    depth: int


def boxes_break_off(file: BinaryIO, start: int, size: int) -> bool:
    """Whether a box ends behind the ``size`` of the file; False where there are no boxes from ``start`` on.

    Raises :class:`BrokenAudio` where FFmpeg would unfold the tables to more than ``MAX_ENTRIES`` entries in memory,
    gigabytes from a kilobyte, and where they lead it to boxes that are not seen from here; :class:`NoAudioTrack` for
    the tables of pictures.
    """
    tables, roots, end = _Tables(file), set[int](), 0
    for number, box in enumerate(_boxes(file, start, size)):
        if box.kind in _MUST_BE_WHOLE:
            end = max(end, box.stated_end)
        if box.depth == 0:
            roots.add(box.start - box.head_bytes)
        if number > _MAX_BOXES or (box.kind in _READ and tables.take(box) > MAX_ENTRIES):
            _refuse()
    tables.check_targets(roots, size)
    return end > size


@dataclass
class _Track:
    """What the boxes of one ``trak`` say; or what stands outside of any."""

    end: int
    samples: int = 0
    edits: int = 0
    chunks: int = 0
    in_full_runs: int = 0  # pieces of the chunks ahead of the last run
    last_run: tuple[int, int] | None = None  # its first chunk, and the pieces of each
    handlers: set[bytes] = field(default_factory=set)
    durations: list[int] = field(default_factory=list)  # of samples; 0 where they differ

    def entries(self) -> int:
        """Of the index: a sample each, or where all samples of sound last one tick, as in PCM, a piece of a chunk."""
        first, each = self.last_run or (1, 1)
        pieces = self.in_full_runs + max(0, self.chunks + 1 - first) * each
        is_sound = b"soun" in self.handlers and not self.handlers & {b"vide", b"subp", b"clcp"}
        by_chunk = is_sound and self.durations == [1]
        return (pieces if by_chunk else max(pieces, self.samples)) * max(1, self.edits)


class _Tables:
    """The counts of a file, box by box."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._track = _Track(0)
        self._sum, self._tracks, self._fragments = 0, 0, 0  # of the tracks before this one
        self._targets: list[tuple[int, int]] = []  # (where a sidx begins to point to, where its sizes stand)

    def take(self, box: Box) -> int:
        """Count what it says; how many entries that makes so far. For each fragment FFmpeg notes something of each
        track, twice the size of an entry."""
        kind, start, length = box.kind, box.start, box.end - box.start
        if start >= self._track.end:
            self._close()
        track = self._track
        if kind == b"trak":
            self._close(box.end)
            self._tracks += 1
        elif kind in _COUNT_AT:
            places = _COUNT_AT[kind]
            track.samples += self._number(start + places[min(self._number(start, 1), len(places) - 1)])
        elif kind == b"elst":
            track.edits += max(0, length - 8) // (20 if self._number(start, 1) == 1 else 12)
        elif kind == b"stts":
            track.durations.append(self._number(start + 12) if self._number(start + 4) == 1 else 0)
        elif kind == b"ctts":
            track.durations.append(0)
        elif kind == b"hdlr":
            track.handlers.add(self._read(start + 8, 4))
        elif kind in (b"stco", b"co64"):
            track.chunks += min(self._number(start + 4), length // (4 if kind == b"stco" else 8))
        elif kind == b"stsc":
            self._take_runs(box)
        elif kind in (b"moof", b"sidx"):
            self._take_fragments(box)
        elif kind in _OPAQUE:
            self._check_opaque(box)
        elif kind in _OF_PICTURES:
            raise NoAudioTrack("a picture: there is no sound track in it")
        elif kind == b"cmov":
            _refuse()
        return self._sum + self._track.entries() + 2 * self._fragments * max(1, self._tracks)

    def check_targets(self, roots: set[int], size: int) -> None:
        """Nothing points elsewhere than at ``roots``, or beyond the file: FFmpeg would find other boxes there."""
        for at, sizes in self._targets:
            content = self._read(sizes, 12 * self._number(sizes - 2, 2))
            for place in range(0, len(content), 12):
                if at < size and at not in roots:
                    _refuse()
                at += int.from_bytes(content[place : place + 4], "big")

    def _close(self, end: int = 0) -> None:
        self._sum += self._track.entries()
        self._track = _Track(end)

    def _take_runs(self, box: Box) -> None:
        """How many samples the chunks hold, from some chunk on to where the next run begins."""
        count = min(self._number(box.start + 4), (box.end - box.start) // 12)
        if count > _MAX_RUNS:
            _refuse()
        content = self._read(box.start + 8, 12 * count)
        runs = np.frombuffer(content[: len(content) // 12 * 12], ">u4").reshape(-1, 3).astype(np.float64)
        if not len(runs) or self._track.last_run is not None:  # the first such table counts
            return
        firsts, pieces = runs[:, 0], runs[:, 1] // _LEAST_PIECE + 1
        steps = np.diff(firsts)
        if firsts[0] < 1 or (steps < 1).any():  # FFmpeg mends such, and may take any of them for any chunk
            self._track.last_run = (1, int(pieces.max()))
        else:
            self._track.in_full_runs = int((steps * pieces[:-1]).sum())
            self._track.last_run = (int(firsts[-1]), int(pieces[-1]))

    def _take_fragments(self, box: Box) -> None:
        if box.kind == b"moof":
            self._fragments += 1
            if box.head_bytes != 8:  # FFmpeg would come back to it eight bytes late
                _refuse()
            return
        if self._number(box.start, 1):
            first, sizes = int.from_bytes(self._read(box.start + 20, 8), "big", signed=True), box.start + 32
        else:
            first, sizes = self._number(box.start + 16), box.start + 24
        self._fragments += self._number(sizes - 2, 2)
        self._targets.append((box.end + first, sizes))

    def _check_opaque(self, box: Box) -> None:
        """No tables are hidden in it, and what describes samples ends within it."""
        if box.end - box.start > _MAX_DESCRIPTION_BYTES:
            _refuse()
        content = self._read(box.start, box.end - box.start)
        if _TELLING.search(content):
            _refuse()
        if box.kind != b"stsd":
            return
        at, left = 8, int.from_bytes(content[4:8], "big")
        while left and at < len(content):
            length, left = int.from_bytes(content[at : at + 4], "big"), left - 1
            in_colours = content[at + 83 : at + 86] in (b"\x01\0\0", b"\x02\0\0", b"\x04\0\0", b"\x08\0\0")
            if at + length > len(content) or (left and (length < _LEAST_DESCRIPTION_BYTES or in_colours)):
                _refuse()
            if length < 8:
                return
            at += length

    def _number(self, at: int, width: int = 4) -> int:
        return int.from_bytes(self._read(at, width), "big")

    def _read(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        return self._file.read(length)


def _boxes(file: BinaryIO, start: int, end: int, depth: int = 0) -> Iterator[Box]:
    """The boxes between two places, and those within them."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        length, kind, head_bytes = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length >= 8 and kind in (b"free", b"hoov") and head[12:] in (b"mvhd", b"cmov"):
            kind = b"moov"  # a moov that was struck out is read all the same
        elif kind == b"free" and head[8:] == b"Anevia\x1a\x1a":  # FFmpeg then reads a list at the end of the file
            _refuse()
        if length == 1:
            length, head_bytes = int.from_bytes(head[8:], "big"), 16
        elif length == 0:  # as far as there is
            length = end - start
        if length < head_bytes:
            return
        box = Box(kind, start + head_bytes, min(end, start + length), start + length, head_bytes, depth)
        yield box
        inside = box.start if kind in _NESTED else _inside_of_meta(file, box) if kind == b"meta" else None
        if inside is not None and depth < _MAX_DEPTH:
            yield from _boxes(file, inside, box.end, depth + 1)
        start += length


def _inside_of_meta(file: BinaryIO, box: Box) -> int | None:
    """Where its boxes begin, with or without a version before them: at the ``hdlr``, which FFmpeg looks for."""
    for at in range(box.start, box.end, _BLOCK_BYTES):
        file.seek(at)
        block = file.read(min(_BLOCK_BYTES, box.end - at))
        place = block.find(b"hdlr")
        while place > 0 and place % 4:
            place = block.find(b"hdlr", place + 1)
        if place >= 0:
            return at + place - 4
    return None


def _refuse() -> None:
    raise BrokenAudio("this MP4 has tables that no recorder writes: encode it anew")
