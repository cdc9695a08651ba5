from __future__ import annotations

import io
import resource
import struct
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from adapters.errors import AudioError, BrokenAudio, NoAudioTrack
from app.audio.boxes import MAX_ENTRIES
from app.audio.containers import breaks_off
from app.audio.source import AudioSource
from tests.app.mp4 import FTYP, box, mulaw, mvhd, table, trak
from tests.app.recordings import encoded, recording, tone, video

MANY = 6_000_000
MDAT = box(b"mdat", bytes(9_000))
ID3 = b"ID3\3\0\0\0\0\0\x0a" + bytes(10)


def moov(*traks: bytes) -> bytes:
    return box(b"moov", mvhd(), *traks)


def bomb(**options: object) -> bytes:
    """Sound of six million samples of a byte, which FFmpeg unfolds to 213 MB."""
    return moov(trak(MANY, runs=((1, MANY),), **options))  # type: ignore[arg-type]


def patched(data: bytes, kind: bytes, at: int, value: int) -> bytes:
    """An MP4 with a number replaced, ``at`` bytes behind the name of a box."""
    place = data.index(kind) + 4 + at
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def assert_refused(data: bytes, error: type[AudioError] = BrokenAudio, match: str = "tables") -> None:
    """As it is, and by a reader that would open it, in no more memory than that takes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=match):
        AudioSource(io.BytesIO(data), max_audio_s=3600)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("count", [2_100_000, 0x0FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("name", [b"stsz", b"stz2"])
def test_more_samples_than_a_recorder_writes_are_refused_before_ffmpeg_unfolds_them(name: bytes, count: int) -> None:
    data = recording("m4a")
    assert_refused(patched(patched(data, b"stsz", 4, 1), b"stsz", 8, count).replace(b"stsz", name))


@pytest.mark.parametrize("kind", [b"wide", b"free", b"skip", b"pnot", b"uuid", b"mdat", b"junk", b"what"])
def test_whatever_kind_of_box_comes_first(kind: bytes) -> None:
    assert_refused(box(kind, bytes(8)) + MDAT + bomb())


@pytest.mark.parametrize("tags", [1, 3])
def test_behind_tags_and_without_a_box_before_it(tags: int) -> None:
    assert_refused(ID3 * tags + FTYP + MDAT + bomb())
    assert_refused(bomb() + MDAT)


@pytest.mark.parametrize("kind", [b"free", b"hoov"])
def test_what_was_struck_out_and_ffmpeg_reads_all_the_same(kind: bytes) -> None:
    assert_refused(FTYP + MDAT + bomb().replace(b"moov", kind))


@pytest.mark.parametrize("kind", [b"dinf", b"mvex", b"udta", b"tref", b"sinf", b"schi", b"ilst", b"edts", b"moof"])
def test_within_every_kind_of_box_that_ffmpeg_looks_into(kind: bytes) -> None:
    assert_refused(FTYP + MDAT + bomb(wrapped=[kind]))


def test_as_deep_as_ffmpeg_looks() -> None:
    assert_refused(FTYP + MDAT + bomb(wrapped=[b"dinf", b"mvex", b"udta", b"tref", b"sinf"]))


@pytest.mark.parametrize("before", [b"", bytes(4), bytes(8)])
def test_within_a_meta_box_wherever_its_boxes_begin(before: bytes) -> None:
    sizes = table(b"stsz", 1, MANY)
    meta = box(b"meta", before, box(b"hdlr", bytes(8), b"soun", bytes(13)), sizes)
    assert_refused(FTYP + MDAT + moov(trak(0, runs=((1, MANY),), inside=meta)))


def test_within_and_behind_what_describes_the_samples() -> None:
    sizes = table(b"stsz", 1, MANY)
    assert_refused(FTYP + MDAT + moov(trak(0, runs=((1, MANY),), descriptions=[mulaw(sizes)])))
    too_long = [mulaw(size=5_000)]
    assert_refused(FTYP + moov(trak(0, runs=((1, MANY),), descriptions=too_long)) + box(b"mdat", sizes * 10))
    too_short = [mulaw(size=16), mulaw()]  # read from within, the second begins anywhere
    assert_refused(FTYP + MDAT + moov(trak(10, descriptions=too_short)))


def test_samples_within_the_limit_of_a_constant_whatever_the_size_of_the_file() -> None:
    assert_refused(FTYP + box(b"mdat", bytes(MANY)) + bomb())
    data = FTYP + MDAT + moov(trak(MAX_ENTRIES - 1_000, runs=((1, 1),)))
    assert not breaks_off(io.BytesIO(data))


def test_sound_in_ticks_is_counted_by_its_chunks() -> None:
    """As FFmpeg indexes it: six million samples of PCM are a few entries, and few bytes claim many chunks of it."""
    plain = FTYP + box(b"mdat", bytes(MANY)) + moov(trak(MANY, step=1, runs=((1, MANY),)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with AudioSource(io.BytesIO(plain), max_audio_s=3600) as source:
        assert next(source).size == 16_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert_refused(FTYP + MDAT + moov(trak(10, step=1, runs=((1, 0x3FFFFFFF),), chunks=10)))
    assert_refused(FTYP + MDAT + moov(trak(MANY, step=1, runs=((1, 1), (5, 0x3FFFFFFF)), chunks=10)))
    as_pictures = box(b"hdlr", bytes(8), b"vide", bytes(13))
    assert_refused(FTYP + MDAT + moov(trak(MANY, step=1, runs=((1, MANY),), inside=as_pictures)))


def test_edits_pass_over_the_samples_of_their_own_track_alone() -> None:
    assert_refused(FTYP + MDAT + moov(trak(20_000, runs=((1, 20_000),), edits=1_000)))
    both = moov(trak(20_000, runs=((1, 1),)), trak(10, edits=1_000))
    assert not breaks_off(io.BytesIO(FTYP + MDAT + both))
    lying = patched(trak(20_000, runs=((1, 20_000),), edits=1_000), b"elst", 4, 1)
    assert_refused(FTYP + MDAT + moov(lying))


def test_endless_fragments_and_other_tables() -> None:
    start = FTYP + moov(trak(10))
    assert_refused(start + box(b"moof", box(b"traf", table(b"trun", 0x7FFFFFFF))))
    assert_refused(FTYP + box(b"moov", box(b"cmov")))
    mdta = box(b"hdlr", bytes(8), b"mdta", bytes(13))
    assert_refused(FTYP + moov(trak(1), box(b"meta", bytes(4), mdta, table(b"keys", 50_000_000))))
    groups = box(b"sgpd", b"\1\0\0\0sync", struct.pack(">II", 1, 200_000_000))
    assert_refused(FTYP + moov(trak(1, inside=groups)))


def test_an_index_of_fragments_is_counted_by_tracks_and_points_at_boxes() -> None:
    def sidx(count: int, first: int = 0, step: int = 8) -> bytes:
        head = struct.pack(">IIIIHH", 1, 1_000, 0, first, 0, count)
        return box(b"sidx", bytes(4), head, struct.pack(">III", step, 1, 0) * count)

    boxes = box(b"free") * 60_000
    assert_refused(FTYP + moov(*[trak(0)] * 200) + sidx(60_000) + boxes)
    start = FTYP + moov(trak(10))
    assert not breaks_off(io.BytesIO(start + sidx(60_000) + boxes))
    assert not breaks_off(io.BytesIO(start + sidx(2, step=9_008) + MDAT))
    assert_refused(start + sidx(1, first=100) + MDAT)
    assert_refused(start + box(b"free", b"Anevia\x1a\x1a"))


@pytest.mark.parametrize("kind", [b"iinf", b"iloc", b"iprp"])
def test_a_picture_has_no_sound(kind: bytes) -> None:
    handler = box(b"hdlr", bytes(8), b"pict", bytes(13))
    tables = box(kind, b"\1\0\0\0", struct.pack(">I", 50_000_000))
    assert_refused(FTYP + box(b"meta", bytes(4), handler, tables) + moov(trak(1)), NoAudioTrack, "a picture")


def test_deep_and_long_ones_take_no_time() -> None:
    deep = b""
    for _ in range(5_000):
        deep = box(b"trak", deep)
    begin = time.process_time()
    breaks_off(io.BytesIO(FTYP + box(b"moov", deep)))
    with pytest.raises(BrokenAudio):
        breaks_off(io.BytesIO(FTYP + box(b"free") * 1_000_000))
    with pytest.raises(BrokenAudio, match="tags"):
        breaks_off(io.BytesIO((ID3[:9] + b"\0") * 1_000_000))
    assert time.process_time() - begin < 10


def heard(data: bytes) -> float:
    with AudioSource(io.BytesIO(data), max_audio_s=3600) as source:
        seconds = sum(block.size for block in source) / 16_000
    assert not source.truncated
    return seconds


def test_a_telephone_call_in_a_quicktime_file_is_heard() -> None:
    data = encoded(tone(130.0, 8_000), "mov", "pcm_mulaw", 8_000)
    assert heard(data) == pytest.approx(130, abs=0.1)
    assert heard(data + box(b"free", bytes(100))) == pytest.approx(130, abs=0.1)


def test_pcm_beside_pictures_is_heard() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as output:
        pictures = output.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=48_000, layout="mono")
        hum = (tone(30.0, 48_000) * 32_767).astype(np.int16)
        for number in range(750):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number % 256, np.uint8), format="rgb24")
            output.mux(pictures.encode(picture))
            frame = av.AudioFrame.from_ndarray(
                hum[None, number * 1920 : (number + 1) * 1920], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 48_000, number * 1920, Fraction(1, 48_000)
            output.mux(sound.encode(frame))
        output.mux(pictures.encode(None))
        output.mux(sound.encode(None))
    assert heard(buffer.getvalue()) == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("flags", ["empty_moov+default_base_moof", "dash", "faststart", "global_sidx+dash"])
def test_what_muxers_write_is_heard(flags: str, tmp_path: Path) -> None:
    """Into a file, which some of them read again."""
    path, hum = tmp_path / "clip.mp4", tone(20.0, 48_000)
    with av.open(str(path), "w", container_options={"movflags": flags, "frag_duration": "1000000"}) as output:
        stream = output.add_stream("aac", rate=48_000, layout="mono")
        for start in range(0, hum.size - 1_023, 1_024):
            frame = av.AudioFrame.from_ndarray(hum[None, start : start + 1_024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    data = path.read_bytes()
    assert (b"sidx" in data) == ("dash" in flags)
    assert heard(data) == pytest.approx(20, abs=0.2)


def test_the_sound_of_a_video_is_heard() -> None:
    assert heard(video(sound=True)) == pytest.approx(2.048, abs=0.1)
