"""What the pages of an Ogg file say of whether all of it is there.

FFmpeg passes over damaged ones, and says so to its log alone. One that is lost between others leaves a gap in the time
stamps; the first and the last of the sound leave nothing.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

_LARGEST = 65_307  # bytes of a page
_HEAD = 27
_BEGIN_PAGES = 16  # headers, and the sound after them
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_breaks_off(file: BinaryIO, size: int) -> bool:
    """Whether the first pages are damaged or some of them are missing, or the last one is, or does not end its
    stream."""
    file.seek(0)
    begin, whole = file.read(2 * _LARGEST), size <= 2 * _LARGEST
    at = 0
    for _ in range(_BEGIN_PAGES):
        page = _page(begin, at)
        if page is None:
            if (whole or len(begin) - at > _LARGEST) and begin.find(b"OggS\0", at) >= 0:
                return True
            break  # at a page that goes on behind what was read, or at what is behind the last one
        at += len(page)
    file.seek(max(0, size - 2 * _LARGEST))
    end = file.read()
    last = _page(end, end.rfind(b"OggS\0"))
    return last is None or not last[5] & 4


def _page(data: bytes, at: int) -> bytes | None:
    """That which begins there, if it is whole and as it was written."""
    if at < 0 or data[at : at + 5] != b"OggS\0" or len(data) < at + _HEAD:
        return None
    segments = data[at + 26]
    sizes = data[at + _HEAD : at + _HEAD + segments]
    page = data[at : at + _HEAD + segments + sum(sizes)]
    if len(sizes) < segments or len(page) < _HEAD + segments + sum(sizes):
        return None
    return page if _checksum(page) == int.from_bytes(page[22:26], "little") else None


def _checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it (RFC 3533): zlib's polynomial, bits the other way round, from 0 and not inverted."""
    bits = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return int(f"{zlib.crc32(bits, 0xFFFF_FFFF) ^ 0xFFFF_FFFF:032b}"[::-1], 2)
