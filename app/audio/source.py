"""Untrusted bytes -> blocks of 16 kHz mono float32, bounded in bytes and in seconds while decoding.

Everything here runs in the thread of the caller, and no recording ever lies in memory whole: a block is decoded when it
is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

import av
import numpy as np
import numpy.typing as npt
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from adapters.errors import AudioTooLong, AudioTooShort, BrokenAudio, EmptyAudio, NoAudioTrack, NotAudio
from app.audio.containers import breaks_off, jitter_s, length_is_stated, looks_known, open_options

SAMPLE_RATE = 16_000
BLOCK_SAMPLES = SAMPLE_RATE
MIN_SAMPLES = 400  # what one frame of the backbone looks at

_MIN_RATE, _MAX_RATE = 1_000, 768_000  # Hz; outside of it a small file resamples to a huge one
_MAX_SAMPLE = 2.0**31  # float samples belong in -1..1, yet some write integers as floats; more than that is no sound
_MAX_BAD_PACKETS = 200  # in a row
_MAX_PLANES = 7  # PyAV finds the end of the planes by a null pointer, which FFmpeg sets behind up to 7 of them
_PADDING_S = 0.1  # encoders pad and trim
_FRAME_S = 0.01

Samples = npt.NDArray[np.float32]


class AudioSource:
    """An opened recording: iterate over it for blocks of one second, the last one shorter.

    Opening decodes the first block, so that what is no audio is refused before it costs compute. Raises
    :class:`EmptyAudio`, :class:`NotAudio`, :class:`NoAudioTrack`, :class:`BrokenAudio`, :class:`AudioTooShort` or
    :class:`AudioTooLong`; the later blocks may still raise :class:`BrokenAudio` (NaN samples) and
    :class:`AudioTooLong`. ``file`` stays the caller's, who closes it after this. Blocks may be asked for in one thread
    and the source closed in another: closing waits for the block in work.
    """

    def __init__(self, file: BinaryIO, *, max_audio_s: float) -> None:
        self.truncated: bool  #: it broke off, or lost parts on the way; final after the last block
        self.duration_s = 0.0  #: how much was decoded so far
        self._max_audio_s = max_audio_s
        self._lock = threading.Lock()
        if file.seek(0, 2) == 0:
            raise EmptyAudio("no audio was sent: the body is empty")
        self.truncated = breaks_off(file)
        self._container: InputContainer | None = _open(file)
        try:
            stream = _audio_stream(self._container)
            self._ends_at_s = self._stated_end(file, self._container, stream)
            self._blocks = _blocks(self._resampled(self._container, stream))
            self._first: Samples | None = next(self._blocks, np.zeros(0, np.float32))
            if self._first.size == 0:
                raise BrokenAudio("no samples in it: a header alone, or contents that cannot be decoded")
            if self._first.size < MIN_SAMPLES:
                raise AudioTooShort(f"{self.duration_s * 1000:.0f} ms of audio; send at least 25 ms")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Samples]:
        return self

    def __next__(self) -> Samples:
        with self._lock:
            if self._container is None:
                raise StopIteration
            first, self._first = self._first, None
            if first is not None:
                return first
            return next(self._blocks)

    def close(self) -> None:
        """Give back what FFmpeg holds; there are no further blocks."""
        with self._lock:
            if self._container is not None:
                self._container.close()
                self._container = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _stated_end(self, file: BinaryIO, container: InputContainer, stream: AudioStream) -> float | None:
        """The length that the file states for its sound, where that can be relied on."""
        place = file.tell()  # FFmpeg reads on from here
        stated = length_is_stated(file, container.format.name)
        file.seek(place)
        if self.truncated or not stated:
            return None
        if stream.duration is not None and stream.time_base is not None:
            length_s = float(stream.duration * stream.time_base)
        elif container.duration is not None and len(container.streams) == 1:
            length_s = container.duration / av.time_base
        else:
            return None
        if length_s > self._max_audio_s + 1:
            self._refuse_length()
        return length_s

    def _refuse_length(self) -> None:
        raise AudioTooLong(f"longer than the {self._max_audio_s:g} s that are accepted: send it in parts")

    def _resampled(self, container: InputContainer, stream: AudioStream) -> Iterator[Samples]:
        """16 kHz mono, in pieces as they come. Rate and channels may change on the way."""
        rate, resampler = 0, None
        for samples, its_rate in self._mono(container, stream):
            if its_rate != rate:
                if resampler is not None:
                    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
                rate = its_rate
                resampler = None
                if rate != SAMPLE_RATE:
                    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
            yield samples if resampler is None else resampler.resample_chunk(samples)
        if resampler is not None:
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    def _mono(self, container: InputContainer, stream: AudioStream) -> Iterator[tuple[Samples, int]]:
        """Checked samples and their rate, about a second at a time; silence where by the time stamps nothing was
        sent."""
        joined = _Joined()
        expected_s, gap_s = (container.start_time or 0) / av.time_base, jitter_s(container.format.name)
        for frame in self._frames(container, stream):
            rate = frame.sample_rate
            if not _MIN_RATE <= rate <= _MAX_RATE:
                raise BrokenAudio(f"a sample rate of {rate} Hz; {_MIN_RATE} to {_MAX_RATE} are possible")
            missing_s = 0.0 if frame.time is None else frame.time - expected_s
            if missing_s > gap_s and self.duration_s + missing_s <= self._max_audio_s:
                # Opus may leave silence out; in anything else a gap is what got lost.
                self.truncated |= self.duration_s > 0 and "opus" not in stream.codec_context.name
                self.duration_s += missing_s
                yield from joined.take()
                missing = round(missing_s * rate)
                for start in range(0, missing, rate):
                    yield np.zeros(min(rate, missing - start), np.float32), rate
            self.duration_s += frame.samples / rate
            expected_s = (expected_s if frame.time is None else frame.time) + frame.samples / rate
            if self.duration_s > self._max_audio_s + _PADDING_S:
                self._refuse_length()
            yield from joined.add(frame)
        yield from joined.take()

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        """What can be decoded. Damage before the first frame is how many live recordings begin, and is passed over."""
        bad_packets, decoded, lost, doubtful = 0, False, False, False
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                break
            except Exception:  # hostile files get more out of PyAV than its own errors
                bad_packets += 1
                doubtful = decoded
                if bad_packets > _MAX_BAD_PACKETS:
                    break
                continue
            for frame in frames:
                bad_packets, decoded, lost, doubtful = 0, True, lost or doubtful, False
                if frame.samples:
                    yield frame
            # Where the writer could not know the size, these end in a packet that FFmpeg calls corrupt.
            doubtful = doubtful or (packet.is_corrupt and container.format.name not in ("wav", "caf"))
        if self._ends_at_s is None:
            ends_early = doubtful
        else:  # what cannot be decoded behind the stated end is a tag or other ballast
            jitter = jitter_s(container.format.name)
            ends_early = self.duration_s < self._ends_at_s - (min(_FRAME_S, jitter) if doubtful else jitter)
        self.truncated = self.truncated or lost or ends_early


class _Joined:
    """Frames of one kind, put together up to about a second: a frame of Opus has 20 ms, and to handle each by itself
    takes Python three times as long as FFmpeg takes to decode it."""

    def __init__(self) -> None:
        self._kind: object = None
        self._fifo = av.AudioFifo()

    def add(self, frame: AudioFrame) -> Iterator[tuple[Samples, int]]:
        """What was held, if ``frame`` is of another kind or makes it enough."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind or _too_many_planes(frame):
            yield from self.take()
            self._kind = kind
        if _too_many_planes(frame):
            yield _checked(_mixed(frame)), frame.sample_rate
            return
        frame.pts = None  # the time stamps were seen to; here frames follow one another
        try:
            self._fifo.write(frame)
        except ValueError:  # time is counted otherwise from here on
            yield from self.take()
            self._fifo.write(frame)
        if self._fifo.samples >= frame.sample_rate:
            yield from self.take()

    def take(self) -> Iterator[tuple[Samples, int]]:
        """What is held."""
        if self._fifo.samples:
            held, self._fifo = self._fifo.read(), av.AudioFifo()
            assert held is not None
            yield _checked(_mixed(held)), held.sample_rate


class _Reader:
    """All that FFmpeg gets to see of a file. Its name is withheld, since FFmpeg guesses formats from endings."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _open(file: BinaryIO) -> InputContainer:
    known = looks_known(file)
    file.seek(0)
    try:
        return av.open(
            _Reader(file), "r", container_options=open_options(), io_open=_open_nothing, metadata_errors="replace"
        )
    except Exception as error:  # hostile files get more out of PyAV than its own errors
        if known:
            raise BrokenAudio("it starts as audio or video does and cannot be read: broken, or cut off") from error
        raise NotAudio("not audio, or of a kind that is not known; send WAV, FLAC, Ogg, MP3, MP4 or WebM") from error


def _open_nothing(*_: object) -> None:
    raise BrokenAudio("it refers to another file; send the audio itself")


def _audio_stream(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise NoAudioTrack("no sound track in it")
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream) or stream.codec_context is None:
        raise NotAudio("its sound is of a kind that cannot be decoded; send WAV, FLAC, Ogg, MP3, MP4 or WebM")
    return stream


def _mixed(frame: AudioFrame) -> Samples:
    """The mean of the channels, as float32 in -1..1."""
    try:
        if _too_many_planes(frame):
            packer = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            frame = packer.resample(frame)[0]
        samples = frame.to_ndarray()  # (C, N) where planar, else (1, N * C)
    except Exception as error:
        raise NotAudio(f"samples of the kind {frame.format.name}, which cannot be read here: send 16 bit") from error
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    with np.errstate(over="ignore", invalid="ignore"):
        mono: Samples = samples.mean(axis=0, dtype=np.float32) if len(samples) > 1 else samples[0].astype(np.float32)
        if samples.dtype == np.uint8:
            mono -= 128
    if samples.dtype.kind in "ui":
        mono /= float(1 << (8 * samples.dtype.itemsize - 1))
    return mono


def _too_many_planes(frame: AudioFrame) -> bool:
    return frame.format.is_planar and frame.layout.nb_channels > _MAX_PLANES


def _checked(samples: Samples) -> Samples:
    if samples.size and not float(np.abs(samples).max()) <= _MAX_SAMPLE:  # false for NaN too
        raise BrokenAudio("samples that are no numbers, infinite or far out of range; floats belong in -1..1")
    return samples


def _blocks(pieces: Iterator[Samples]) -> Iterator[Samples]:
    """Blocks of one second, and what is left. Pieces may be of any size, none included."""
    held: list[Samples] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += piece.size
        if count < BLOCK_SAMPLES:
            continue
        joined = np.concatenate(held)
        whole = count - count % BLOCK_SAMPLES
        for start in range(0, whole, BLOCK_SAMPLES):
            yield joined[start : start + BLOCK_SAMPLES]
        held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)
