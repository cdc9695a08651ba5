"""A corpus <-> a few long Ogg Opus files with an index, a tenth of the size.

The index is JSON Lines: the manifest's line of a clip and where the clip lies: ``file``, ``start_sample`` and
``samples``, counted at 16 kHz from the first sample that a decoder gives out (it drops the encoder's pre-skip).
Clips follow each other with a short silence between, so that none smears into the next.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import cast

import av
import numpy as np
import soxr

from adapters.errors import DataError
from adapters.training.clip_samples import read_clip
from adapters.training.corpus.clip_audio import SAMPLE_RATE, Samples, flac_seconds, write_flac
from adapters.training.manifest import (
    Clip,
    clip_from_json,
    clip_to_json,
    read_json_lines,
    read_manifest,
    write_json_lines,
    write_manifest,
)

MAX_FILE_BYTES = 16 * 2**20
BITS_PER_SECOND = 16_000
GAP_SAMPLES = SAMPLE_RATE // 10
INDEX = "index.jsonl"

_OPUS_RATE = 48_000  # what every Opus decoder gives out
_BLOCK = SAMPLE_RATE * 10
_PAGE_HEADER_BYTES = 28  # of Ogg, about one a second

Progress = Callable[[int, int], None]
"""Called with clips done and clips in all."""


@dataclass(frozen=True)
class PackedClip:
    """A clip of an index and where its samples are."""

    clip: Clip
    file: Path
    start_sample: int
    samples: int


def pack(
    manifest: Path,
    out: Path,
    *,
    bits_per_second: int = BITS_PER_SECOND,
    max_file_bytes: int = MAX_FILE_BYTES,
    progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Write the clips of `manifest` as ``out/pack-NNN.opus`` and, last, ``out/index.jsonl``; the files' paths.

    Raises:
        DataError: a manifest that is none, a clip missing, not 16 kHz mono, or not below the manifest's folder.
    """
    if not 6_000 <= bits_per_second <= 64_000:
        raise DataError(f"{bits_per_second} bit/s: speech in Opus takes 6000 to 64000; 12000 to 16000 is usual")
    clips = read_manifest(manifest, check_files=True)
    out.mkdir(parents=True, exist_ok=True)
    writer: _OpusWriter | None = None
    files: list[Path] = []
    index: list[dict[str, object]] = []
    try:
        for done, clip in enumerate(clips):
            record = clip_to_json(clip, manifest.parent)
            _require_below(str(record["path"]), f"{manifest}: {clip.path}")
            samples = read_clip(clip.path)
            needed = len(samples) * bits_per_second / SAMPLE_RATE / 8 * 1.5  # a variable rate swings for one clip
            if writer is None or (writer.bytes + needed > max_file_bytes and writer.position > 0):
                if writer is not None:
                    writer.close()
                files.append(out / f"pack-{len(files):03d}.opus")
                writer = _OpusWriter(files[-1], bits_per_second)
            start = writer.position
            writer.write(samples)
            writer.write(np.zeros(GAP_SAMPLES, np.float32))
            index.append({"file": files[-1].name, "start_sample": start, "samples": len(samples), **record})
            progress(done + 1, len(clips))
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    write_json_lines(out / INDEX, index)
    return files


class _OpusWriter:
    """One Opus file in the making; named only when it is whole."""

    def __init__(self, path: Path, bits_per_second: int) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._container = av.open(str(self._temporary), "w", format="ogg", options={"fflags": "+bitexact"})
        self._stream = self._container.add_stream(
            "libopus", rate=SAMPLE_RATE, options={"application": "audio", "frame_duration": "60", "vbr": "on"}
        )
        codec = self._stream.codec_context
        codec.layout = "mono"
        codec.format = "flt"
        codec.bit_rate = bits_per_second
        self.position = 0
        self._packet_bytes = 0

    @property
    def bytes(self) -> float:
        """About what the file takes by now."""
        return self._packet_bytes + _PAGE_HEADER_BYTES * self.position / SAMPLE_RATE + 4096

    def write(self, samples: Samples) -> None:
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self.position
        frame.time_base = Fraction(1, SAMPLE_RATE)
        self.position += len(samples)
        self._mux(frame)

    def _mux(self, frame: av.AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._packet_bytes += packet.size + packet.size // 255 + 1  # Ogg's lacing
            self._container.mux(packet)

    def close(self) -> None:
        self._mux(None)
        self._container.close()
        os.replace(self._temporary, self._path)

    def abandon(self) -> None:
        self._container.close()
        self._temporary.unlink(missing_ok=True)


def _require_below(path: str, where: str) -> None:
    """Paths of an index come from elsewhere: none may lead out of the folder that is unpacked into."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise DataError(f"{where}: the path must lie below the folder, without '..', got {path!r}")


def read_index(index: Path, folder: Path | None = None) -> list[PackedClip]:
    """Read and validate an index; the clips' paths are joined to `folder` (default: the index's).

    Raises:
        DataError: naming the file and the line.
    """
    packed: list[PackedClip] = []
    for where, record in read_json_lines(index):
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected a JSON object, got {type(record).__name__}")
        rest = dict(record)
        file, start, samples = (rest.pop(name, None) for name in ("file", "start_sample", "samples"))
        if not isinstance(file, str) or not file or PurePosixPath(file).name != file:
            raise DataError(f"{where}: file must be the name of a file beside the index, got {file!r}")
        for name, value, least in (("start_sample", start, 0), ("samples", samples, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise DataError(f"{where}: {name} must be a whole number of at least {least}, got {value!r}")
        clip = clip_from_json(rest, folder or index.parent, where)
        _require_below(rest["path"], where)
        packed.append(PackedClip(clip, index.parent / file, cast(int, start), cast(int, samples)))
    if not packed:
        raise DataError(f"{index}: no clips in it")
    return packed


def unpack(index: Path, out: Path, *, progress: Progress = lambda done, total: None) -> Path:
    """Write every clip of `index` as FLAC below `out` and, last, a manifest, whose path it returns.

    Clips that are there already in their full length are left as they are.

    Raises:
        DataError: an index that is none, or an Opus file that is missing, broken or shorter than the index says.
    """
    packed = read_index(index, out)
    by_file: dict[Path, list[PackedClip]] = defaultdict(list)
    for item in packed:
        by_file[item.file].append(item)
    done = 0
    for file, items in by_file.items():
        items.sort(key=lambda item: item.start_sample)
        if all(_there(item) for item in items):
            done += len(items)
            progress(done, len(packed))
            continue
        for item, samples in _cut(file, items):
            if not _there(item):
                write_flac(item.clip.path, samples)
            done += 1
            progress(done, len(packed))
    manifest = out / "manifest.jsonl"
    write_manifest(manifest, [item.clip for item in packed])
    return manifest


def _there(item: PackedClip) -> bool:
    seconds = flac_seconds(item.clip.path)
    return seconds is not None and round(seconds * SAMPLE_RATE) == item.samples


def _cut(file: Path, items: Sequence[PackedClip]) -> Iterator[tuple[PackedClip, Samples]]:
    """The samples of `items`, which are sorted by start; memory holds a clip and a block."""
    blocks = _blocks(file)
    held, first = np.zeros(0, np.float32), 0  # the samples from `first` on
    for item in items:
        stop = item.start_sample + item.samples
        while first + len(held) < stop:
            block = next(blocks, None)
            if block is None:
                raise DataError(
                    f"{file}: ends at sample {first + len(held)}, the index names {item.clip.path.name} up to {stop}"
                )
            passed = max(0, min(item.start_sample - first, len(held)))
            held, first = np.concatenate([held[passed:], block]), first + passed
        begin = item.start_sample - first
        if begin < 0:
            raise DataError(f"{file}: {item.clip.path.name} overlaps the clip before it")
        yield item, held[begin : begin + item.samples]


def _blocks(file: Path) -> Iterator[Samples]:
    """A long Opus file at 16 kHz, in blocks."""
    resampler = soxr.ResampleStream(_OPUS_RATE, SAMPLE_RATE, 1, dtype="float32")
    to_float = av.AudioResampler(format="flt", layout="mono", rate=_OPUS_RATE)
    held: list[Samples] = []
    try:
        with av.open(str(file)) as container:
            for frame in container.decode(container.streams.audio[0]):
                held += [resampler.resample_chunk(part.to_ndarray()[0]) for part in to_float.resample(frame)]
                if sum(map(len, held)) >= _BLOCK:
                    yield np.concatenate(held)
                    held = []
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DataError(f"{file}: cannot be read as Ogg Opus: {error}") from error
    held.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    yield np.concatenate(held)
