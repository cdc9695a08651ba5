"""What FFmpeg may open for us, and what a file's own structure says before anything is decoded.

Only containers of audio and video are tried, none that names other files or addresses to open, and no decoder but those
of audio ever runs. Where a container states its size, a file that ends before is known to have broken off without
decoding it; FFmpeg itself is silent about most of these.
"""

from __future__ import annotations

from functools import cache
from typing import BinaryIO

import av
import av.codec

from adapters.errors import BrokenAudio
from app.audio.boxes import boxes_break_off
from app.audio.ogg import ogg_breaks_off

# Playlists and the like (hls, dash, concat, sdp, image2) open what they name; raw formats would take any bytes.
DEMUXERS = (
    "aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dsf", "dts", "eac3", "flac", "flv", "loas",
    "matroska", "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "nistsphere", "ogg", "oma", "qcp", "rm", "tak",
    "tta", "voc", "w64", "wav", "wv",
)  # fmt: skip
# Their length is guessed from the file's size, or may be: who writes to a pipe puts a placeholder.
_LENGTH_IS_GUESSED = frozenset(
    {"aac", "ac3", "amr", "avi", "caf", "dts", "eac3", "loas", "mpeg", "mpegts", "voc", "w64"}
)
_STREAMED = 0x7FFF_F000  # writers to a pipe put this much or more, or 0, for a size that they cannot know
_MAX_CHUNKS = 1_000
_MAX_TAGS = 1_000
_MAGIC = ((0, b"RIFF"), (0, b"RF64"), (0, b"FORM"), (0, b"fLaC"), (0, b"OggS"), (0, b"ID3"), (0, b"caff"),
          (0, b".snd"), (0, b"\x1aE\xdf\xa3"), (0, b"#!AMR"), (4, b"ftyp"))  # fmt: skip


_BROADCAST = 88  # of the flags in an ASF's file properties, from the begin of their GUID on
_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEAD_BYTES = 1 << 16


@cache
def open_options() -> dict[str, str]:
    """FFmpeg's options that hold it to the above."""
    audio_decoders = []
    for name in sorted(av.codec.codecs_available):
        try:
            if av.codec.Codec(name, "r").type == "audio":
                audio_decoders.append(name)
        except ValueError:  # an encoder only
            continue
    return {
        "format_whitelist": ",".join(DEMUXERS),
        "codec_whitelist": ",".join(audio_decoders),
        "protocol_whitelist": "none",
    }


def looks_known(file: BinaryIO) -> bool:
    """Whether it starts as some container does, so that failing to open it means that it is broken."""
    file.seek(0)
    head = file.read(16)
    return any(head[at : at + len(magic)] == magic for at, magic in _MAGIC)


def length_is_stated(file: BinaryIO, demuxer: str) -> bool:
    """Whether the duration that FFmpeg gives was stated by the file, rather than guessed from its size."""
    kind = demuxer.split(",")[0]
    if kind in _LENGTH_IS_STATED_BY:
        return _LENGTH_IS_STATED_BY[kind](file)
    return kind not in _LENGTH_IS_GUESSED


def jitter_s(demuxer: str) -> float:
    """How far a file's time stamps, and the length that it states, may be from what it holds: encoders pad and trim,
    and many containers round. FLAC counts samples."""
    return 0.002 if demuxer == "flac" else 0.1


def breaks_off(file: BinaryIO) -> bool:
    """Whether the file is shorter than its container says, where that kind of container says so.

    What has none of the other starts is walked as an MP4, as FFmpeg would: many a kind of box may come first. Raises
    what :func:`boxes_break_off` does.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    if head[:4] in (b"RIFF", b"RF64"):
        return _riff_breaks_off(file, head, size)
    if head[:4] == b"FORM":
        return 8 + int.from_bytes(head[4:8], "big") > size
    if head[:4] == b"OggS":
        return ogg_breaks_off(file, size)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_breaks_off(file, size)
    if head[:4] == b"caff":
        return _caf_breaks_off(file, size)
    return boxes_break_off(file, _end_of_tags(file), size)


def _riff_breaks_off(file: BinaryIO, head: bytes, size: int) -> bool:
    """By the size of the ``data`` chunk of a WAV, else by that of the whole."""
    whole = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RF64" or whole == 0 or whole >= _STREAMED:
        return False
    data = _wav_data(file, size) if head[8:12] == b"WAVE" else None
    if data is None:
        return 8 + whole > size
    begin, length = data
    return 0 < length < _STREAMED and begin + length > size


def _wav_data(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """Where the samples begin, and how many bytes of them its header has."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            return at + 8, length
        at += 8 + length + length % 2
        if at >= size:
            break
    return None


def _wav_states_length(file: BinaryIO) -> bool:
    """A plain WAV by its ``data`` chunk; RF64 is made for those that are too long for one."""
    size = file.seek(0, 2)
    file.seek(0)
    data = _wav_data(file, size)
    file.seek(0)
    return file.read(4) == b"RF64" or (data is not None and 0 < data[1] < _STREAMED)


def _caf_breaks_off(file: BinaryIO, size: int) -> bool:
    """By the sizes of its chunks; -1 is that of one whose writer could not know it."""
    at = 8
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        chunk = file.read(12)
        if not chunk:
            return False
        length = int.from_bytes(chunk[4:], "big", signed=True)
        if len(chunk) == 12 and length < 0:
            return False
        at += 12 + length
        if len(chunk) < 12 or at > size:
            return True
    return False


def _matroska_breaks_off(file: BinaryIO, size: int) -> bool:
    """By the size of its segment, which live recordings leave unknown."""
    file.seek(4)
    header = _ebml_size(file)
    if header is None or header > size:
        return False
    file.seek(header, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return False
    segment = _ebml_size(file)
    return segment is not None and file.tell() + segment > size


def _matroska_states_length(file: BinaryIO) -> bool:
    """Whether its Info has a Duration, which live recordings leave out."""
    file.seek(4)
    header = _ebml_size(file)
    if header is None:
        return False
    file.seek(header, 1)
    if _ebml_id(file) != b"\x18\x53\x80\x67":  # Segment
        return False
    _ebml_size(file)
    info = _ebml_child(file, b"\x15\x49\xa9\x66", before=b"\x1f\x43\xb6\x75")  # Info, before any Cluster
    return info is not None and _ebml_child(file, b"\x44\x89", end=file.tell() + info) is not None  # Duration


def _ebml_child(file: BinaryIO, wanted: bytes, *, before: bytes = b"", end: int | None = None) -> int | None:
    """The size of the next element ``wanted``, at whose content the file stands then, unless ``before`` or ``end``
    comes first."""
    for _ in range(_MAX_CHUNKS):
        name = _ebml_id(file) if end is None or file.tell() < end else b""
        length = _ebml_size(file) if name else None
        if length is None or name == before:
            return None
        if name == wanted:
            return length
        file.seek(length, 1)
    return None


def _ebml_id(file: BinaryIO) -> bytes:
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first and first[0] else first


def _ebml_size(file: BinaryIO) -> int | None:
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & ((1 << (8 - width)) - 1)]) + file.read(width - 1), "big")
    return None if value == (1 << (7 * width)) - 1 else value


def _end_of_tags(file: BinaryIO) -> int:
    """Where the file begins behind whatever ID3 tags there are. Raises :class:`BrokenAudio` where there is no end."""
    start = 0
    for _ in range(_MAX_TAGS):
        file.seek(start)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return start
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        if head[3] == 4 and head[5] & 0x10:  # what stands at the end again
            start += 10
    raise BrokenAudio(f"more than {_MAX_TAGS} ID3 tags: one is enough")


def _asf_states_length(file: BinaryIO) -> bool:
    """Unless it is flagged as a broadcast."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    at = head.find(_FILE_PROPERTIES)
    return 0 <= at < len(head) - _BROADCAST and not head[at + _BROADCAST] & 1


def _has_xing_header(file: BinaryIO) -> bool:
    """In the first frame of an MP3, behind whatever tags there are."""
    file.seek(_end_of_tags(file))
    frame = file.read(2048)
    return b"Xing" in frame or b"Info" in frame


_LENGTH_IS_STATED_BY = {
    "asf": _asf_states_length,
    "matroska": _matroska_states_length,
    "mp3": _has_xing_header,
    "wav": _wav_states_length,
}
