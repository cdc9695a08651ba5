"""Decoding in processes of their own; with real ones, of which some are told to fail."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adapters.errors import (
    AudioTooLong,
    AudioTooShort,
    BrokenAudio,
    Draining,
    EmptyAudio,
    EngineError,
    NoAudioTrack,
    NotAudio,
)
from app.audio.pool import Decoders
from app.audio.process import AT_ONCE_SAMPLES
from app.audio.recording import Recording
from app.audio.source import AudioSource
from app.metrics import DECODERS_LOST
from tests.app.live import wait_until
from tests.app.recordings import recording, tone, video, wav, with_sizes

FAULTS = """
import app.audio.process as process, os, signal
from app.audio.source import AudioSource

class Faulty(AudioSource):
    def __init__(self, file, **options):
        kind = file.read(5)
        if kind == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        while kind == b"spins":
            pass
        if kind == b"hoard":
            bytes(2 * process.MOST_BYTES)
        if kind == b"fails":
            raise KeyError("a fault of ours")
        super().__init__(file, **options)

process.AudioSource, process.MOST_CPU_S = Faulty, 0.3
process.main()
"""


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    made = Decoders(1)
    yield made
    made.close()


@pytest.fixture
def faulty() -> Iterator[Decoders]:
    made = Decoders(1, [sys.executable, "-c", FAULTS])
    yield made
    made.close()


def plain(data: bytes) -> np.ndarray:
    with AudioSource(io.BytesIO(data), max_audio_s=3600) as source:
        return np.concatenate(list(source))


def opened(decoders: Decoders, data: bytes, max_audio_s: float = 3600) -> Recording:
    return decoders.open(io.BytesIO(data), max_audio_s=max_audio_s)


def refused(decoders: Decoders, data: bytes, max_audio_s: float = 3600) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what callers look at
        opened(decoders, data, max_audio_s)
    return caught.value


def only(decoders: Decoders) -> int:
    """The number of the only process."""
    (process,) = decoders._processes
    return process.pid


@pytest.mark.parametrize("kind", ["opus", "wav-mulaw-8k", "flac", "mp3", "m4a"])
@pytest.mark.parametrize("seconds", [2.0, 30.3])
def test_what_comes_is_what_is_decoded_here(decoders: Decoders, kind: str, seconds: float) -> None:
    data = recording(kind, seconds)
    with opened(decoders, data) as heard:
        blocks = list(heard)
    assert all(block.size == 16_000 for block in blocks[:-1])
    assert np.array_equal(np.concatenate(blocks), plain(data))
    assert heard.duration_s == pytest.approx(seconds, abs=0.1)
    assert not heard.truncated


def test_a_large_file_goes_by_its_descriptor(decoders: Decoders) -> None:
    data = wav(tone(60.0))
    assert len(data) > 1 << 20
    for spooled in (tempfile.SpooledTemporaryFile(1 << 20), tempfile.SpooledTemporaryFile()):  # noqa: SIM115
        with spooled as file:
            file.write(data)
            with decoders.open(file, max_audio_s=3600) as heard:  # type: ignore[arg-type]
                assert np.array_equal(np.concatenate(list(heard)), plain(data))


def test_refusals_are_those_of_the_source(decoders: Decoders) -> None:
    for data, kind in [
        (b"", EmptyAudio),
        (b"no audio at all", NotAudio),
        (b"RIFF" + bytes(100), BrokenAudio),
        (video(sound=False), NoAudioTrack),
        (wav(tone(0.01)), AudioTooShort),
        (recording("flac", 65.0), AudioTooLong),
    ]:
        error = refused(decoders, data, max_audio_s=60)
        with pytest.raises(kind) as here:
            AudioSource(io.BytesIO(data), max_audio_s=60)
        assert (type(error), str(error)) == (kind, str(here.value))


def test_what_is_found_later_is_told_behind_what_was_good(decoders: Decoders) -> None:
    samples = tone(20.0)
    samples[15 * 16_000] = np.nan
    with opened(decoders, wav(samples, subtype="FLOAT")) as heard:
        taken = [next(heard) for _ in range(14)]
        assert np.array_equal(np.concatenate(taken), samples[: 14 * 16_000])
        for _ in range(2):
            with pytest.raises(BrokenAudio, match="no numbers"):
                next(heard)
    with opened(decoders, with_sizes(wav(tone(10.1)), 0, 0), max_audio_s=10) as heard, pytest.raises(AudioTooLong):
        list(heard)


def test_what_breaks_off_is_told_at_its_end(decoders: Decoders) -> None:
    data = recording("opus", 20.0)
    with opened(decoders, data[: len(data) // 2]) as heard:
        assert sum(block.size for block in heard) < 12 * 16_000
        assert heard.truncated


def test_a_long_recording_that_nobody_asks_for_holds_up_no_other(decoders: Decoders) -> None:
    with opened(decoders, recording("flac", 60.0)) as long:
        assert long.duration_s < 2 * AT_ONCE_SAMPLES / 16_000  # not decoded to its end
        for _ in range(3):
            with opened(decoders, recording("opus", 2.0)) as short:
                assert sum(block.size for block in short) == pytest.approx(32_000, abs=1_600)
        assert sum(block.size for block in long) == 60 * 16_000


def test_many_at_once_each_get_their_own(decoders: Decoders) -> None:
    clips = [wav(tone(9.0 + number / 10, loudness=0.1 + number / 50), subtype="FLOAT") for number in range(12)]
    heard: dict[int, np.ndarray] = {}

    def hear(number: int) -> None:
        with opened(decoders, clips[number]) as source:
            heard[number] = np.concatenate(list(source))

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert all(np.array_equal(heard[number], plain(clips[number])) for number in range(len(clips)))


def test_a_closed_one_gives_nothing_and_leaves_nothing(decoders: Decoders) -> None:
    heard = opened(decoders, recording("flac", 60.0))
    (process,) = decoders._processes
    assert process.recordings == 1
    heard.close()
    heard.close()
    assert list(heard) == []
    assert process.recordings == 0


def test_killed_in_the_middle_it_goes_on_in_another() -> None:
    data, decoders = recording("flac", 40.0), Decoders(1)
    decoders.start()
    before = DECODERS_LOST._value.get()
    with opened(decoders, data) as heard, opened(decoders, data) as other:
        taken = [next(heard) for _ in range(10)]
        killed = only(decoders)
        os.kill(killed, signal.SIGKILL)
        taken += list(heard)
        assert np.array_equal(np.concatenate(taken), plain(data))
        assert np.array_equal(np.concatenate(list(other)), plain(data))
        assert only(decoders) != killed
    assert DECODERS_LOST._value.get() == before + 1
    decoders.close()


@pytest.mark.parametrize(("kind", "why"), [(b"crash", "SIGSEGV"), (b"spins", "more than")])
def test_a_file_that_ends_its_process_is_refused_and_the_others_go_on(
    faulty: Decoders, caplog: pytest.LogCaptureFixture, kind: bytes, why: str
) -> None:
    data = recording("flac", 30.0)
    with opened(faulty, data) as heard:
        taken = [next(heard)]
        assert isinstance(refused(faulty, kind), BrokenAudio)
        assert caplog.text.count(why) == 2  # tried once more
        taken += list(heard)
    assert np.array_equal(np.concatenate(taken), plain(data))


def test_those_who_wait_behind_a_file_that_ends_the_process_are_heard(faulty: Decoders) -> None:
    data, found = recording("opus", 2.0), list[int]()

    def hear() -> None:
        with opened(faulty, data) as heard:
            found.append(sum(block.size for block in heard))

    bad = threading.Thread(target=refused, args=(faulty, b"spins"))
    bad.start()
    wait_until(lambda: faulty._processes and faulty._processes[0].waiting)
    good = [threading.Thread(target=hear) for _ in range(4)]
    for thread in good:
        thread.start()
    for thread in [bad, *good]:
        thread.join(timeout=60)
    assert found == [plain(data).size] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="its memory is bounded on Linux alone")
def test_too_much_memory_is_a_refusal_and_not_the_end(faulty: Decoders) -> None:
    opened(faulty, recording("opus")).close()
    process = only(faulty)
    error = refused(faulty, b"hoard")
    assert isinstance(error, BrokenAudio)
    assert "512 MiB" in str(error)
    assert only(faulty) == process
    opened(faulty, recording("opus")).close()


def test_a_fault_of_ours_is_told_as_one(faulty: Decoders) -> None:
    error = refused(faulty, b"fails")
    assert isinstance(error, RuntimeError)
    assert "a fault of ours" in str(error)


def test_a_process_that_does_not_start_is_not_the_files_fault() -> None:
    decoders = Decoders(1, [sys.executable, "-c", "raise SystemExit(3)"])
    for _ in range(2):
        error = refused(decoders, recording("opus"))
        assert isinstance(error, EngineError)
        assert "exit status 3" in str(error)
    decoders.close()


@pytest.mark.parametrize("answers", [b"\xff" * 64, b"\0\0\0\2\0\0\0\0no"])
def test_a_process_that_answers_nonsense_is_replaced(answers: bytes, caplog: pytest.LogCaptureFixture) -> None:
    program = f"""
        import socket, sys
        channel = socket.socket(fileno=int(sys.argv[1]))
        channel.sendall(b"\\0\\0\\0\\2\\0\\0\\0\\0{{}}")
        channel.recv(4)
        channel.sendall({answers!r})
        channel.recv(1 << 20, socket.MSG_WAITALL)
    """
    decoders = Decoders(1, [sys.executable, "-c", textwrap.dedent(program)])
    assert isinstance(refused(decoders, recording("opus")), BrokenAudio)
    assert caplog.text.count("what was not asked") == 2
    decoders.close()


def test_closed_while_they_start_nobody_is_told_that_they_do_not() -> None:
    decoders, found = Decoders(1, [sys.executable, "-c", "import time; time.sleep(60)"]), list[Exception]()
    asking = threading.Thread(target=lambda: found.append(refused(decoders, recording("opus"))))
    asking.start()
    wait_until(lambda: decoders._processes and decoders._processes[0].waiting)
    decoders.close()
    asking.join(timeout=20)
    assert [type(error) for error in found] == [Draining]


def test_closed_it_takes_nothing_and_its_processes_end() -> None:
    decoders = Decoders(2)
    decoders.start()
    heard = opened(decoders, recording("flac", 60.0))
    pids = [process.pid for process in decoders._processes]
    assert len(pids) == 2
    decoders.close()
    with pytest.raises(Draining):
        list(heard)
    heard.close()
    assert isinstance(refused(decoders, recording("opus")), Draining)
    wait_until(lambda: not any(map(alive, pids)), timeout_s=20)


def test_the_end_of_the_service_is_theirs_and_its_signals_are_not(tmp_path: Path) -> None:
    program = """
        import io, os, sys, time
        from app.audio.pool import Decoders
        decoders = Decoders(1)
        decoders.open(open(sys.argv[1], "rb"), max_audio_s=60)
        print(decoders._processes[0].pid, flush=True)
        time.sleep(600)
    """
    clip = tmp_path / "clip.flac"
    clip.write_bytes(recording("flac", 30.0))
    called = [sys.executable, "-c", textwrap.dedent(program), str(clip)]
    with subprocess.Popen(called, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        for told in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, told)
        time.sleep(0.2)
        assert alive(pid)
        service.kill()
        wait_until(lambda: not alive(pid), timeout_s=20)


def alive(pid: int) -> bool:
    """And no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
