"""MP4 files made by hand, as no muxer makes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

FTYP = struct.pack(">I4s", 16, b"ftyp") + b"isom" + bytes(4)


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def table(kind: bytes, *numbers: int) -> bytes:
    """A box of 32-bit numbers behind version and flags."""
    return box(kind, bytes(4), *(struct.pack(">I", number) for number in numbers))


def mulaw(*inside: bytes, size: int | None = None, format: bytes = b"ulaw") -> bytes:
    """What describes sound at 8 kHz; ``size`` is what it says of its own."""
    content = bytes(6) + struct.pack(">HHHIHHHHI", 1, 0, 0, 0, 1, 16, 0, 0, 8000 << 16) + b"".join(inside)
    return struct.pack(">I4s", size or 8 + len(content), format) + content


def trak(
    samples: int,
    *,
    step: int = 2,
    edits: int = 0,
    runs: Sequence[tuple[int, int]] = ((1, 1),),
    chunks: int = 1,
    descriptions: Sequence[bytes] = (mulaw(),),
    inside: bytes = b"",
    wrapped: Sequence[bytes] = (),
) -> bytes:
    """Sound at 8 kHz of ``samples`` bytes, each of ``step`` ticks; its table of sizes within the ``wrapped`` boxes."""
    sizes = table(b"stsz", 1, samples)
    for kind in reversed(wrapped):
        sizes = box(kind, sizes)
    steps = table(b"stts", 1, samples, step)
    spans = table(b"stsc", len(runs), *(number for first, count in runs for number in (first, count, 1)))
    places = table(b"stco", chunks, *([48] * chunks))
    described = box(b"stsd", bytes(4), struct.pack(">I", len(descriptions)), *descriptions)
    lists = box(
        b"edts", box(b"elst", bytes(4), struct.pack(">I", edits), struct.pack(">IIHH", 1 << 20, 0, 1, 0) * edits)
    )
    return box(
        b"trak",
        box(b"tkhd", bytes(12), struct.pack(">I", 1), bytes(68)),
        lists if edits else b"",
        box(
            b"mdia",
            box(b"mdhd", bytes(12), struct.pack(">II", 8000, samples), bytes(4)),
            box(b"hdlr", bytes(8), b"soun", bytes(13)),
            box(b"minf", box(b"stbl", described, steps, sizes, spans, places, inside)),
        ),
    )


def mvhd() -> bytes:
    return box(b"mvhd", bytes(12), struct.pack(">II", 1000, 1 << 20), bytes(80))
