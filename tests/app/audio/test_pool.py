"""Processes that decode and end, by intent or not; real ones, of which some are told to fail."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adapters.errors import (
    BrokenAudio,
    Draining,
    NoDecoder,
)
from app.audio.pool import Decoders
from app.metrics import DECODERS_LOST
from tests.app.decoded import alive, only, opened, plain, refused
from tests.app.live import wait_until
from tests.app.recordings import recording

FAULTS = """
import app.audio.process as process, os, signal, time
from app.audio.source import AudioSource

class Faulty(AudioSource):
    def __init__(self, file, **options):
        kind = file.read(5)
        if kind == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        while kind == b"spins":
            pass
        if kind == b"waits":
            time.sleep(600)
        if kind == b"stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        if kind == b"alarm":
            os.kill(os.getpid(), 40)  # a signal without a name
        if kind == b"hoard":
            bytes(2 * process.MOST_BYTES)
        if kind == b"fails":
            raise KeyError("a fault of ours")
        super().__init__(file, **options)

process.AudioSource, process.MOST_CPU_S = Faulty, 0.3
process.main()
"""


@pytest.fixture
def faulty() -> Iterator[Decoders]:
    made = Decoders(1, [sys.executable, "-c", FAULTS], silent_s=1.5)
    yield made
    made.close()


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


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (b"crash", "SIGSEGV"),
        (b"alarm", "signal 40"),
        (b"spins", "more than"),
        (b"waits", "did not answer"),
        (b"stops", "did not answer"),
    ],
)
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
        assert isinstance(error, NoDecoder)
        assert "exit status 3" in str(error)
    decoders.close()


def test_one_that_ends_while_it_comes_up_is_no_end_while_another_does_not(tmp_path: Path) -> None:
    """The system may have killed it for its memory: nobody was heard by it yet."""
    mark = tmp_path / "there was one"
    first = (
        f"import pathlib\nmark = pathlib.Path({str(mark)!r})\nif not mark.exists():\n    mark.touch()\n    exit(9)\n"
    )
    decoders = Decoders(1, [sys.executable, "-c", first + FAULTS])
    opened(decoders, recording("opus", 2.0)).close()
    assert mark.exists()
    decoders.close()


def test_one_that_cannot_be_started_is_no_end_while_another_lives(faulty: Decoders) -> None:
    data = recording("opus", 2.0)
    opened(faulty, data).close()
    faulty._count, faulty._command = 2, ["/no/such/program"]
    opened(faulty, data).close()
    os.kill(only(faulty), signal.SIGKILL)
    error = refused(faulty, data)
    assert isinstance(error, NoDecoder)
    assert "cannot be started" in str(error)


DEEP = b"[" * 100_000


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize(
    "answers",
    [
        b"\xff" * 64,
        b"\0\0\0\2\0\0\0\0no",
        b"\0\0\0\2\0\0\0\0[]",
        len(DEEP).to_bytes(4, "big") + bytes(4) + DEEP,
    ],
    ids=["head", "text", "kind", "deep"],
)
def test_a_process_that_answers_nonsense_is_replaced(
    answers: bytes, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it reads on or not: of a large file most is still to be sent then."""
    program = f"""
        import socket, sys, time
        channel = socket.socket(fileno=int(sys.argv[1]))
        channel.sendall(b"\\0\\0\\0\\2\\0\\0\\0\\0{{}}")
        channel.recv(4)
        answers = {answers[:64]!r} if {len(answers)} <= 64 else {answers[:9]!r} + b"[" * 99_999
        channel.sendall(answers)
        time.sleep(600)
    """
    decoders, found = Decoders(1, [sys.executable, "-c", textwrap.dedent(program)]), list[Exception]()
    asking = threading.Thread(target=lambda: found.append(refused(decoders, bytes(size))))
    asking.start()
    asking.join(timeout=30)
    assert [type(error) for error in found] == [BrokenAudio]
    assert caplog.text.count("what was not asked") == 2
    decoders.close()


def test_a_question_that_does_not_get_through_is_nobody_elses() -> None:
    """Its descriptor cannot be sent, while others are asked on the same channel."""

    class Gone(io.BytesIO):
        def fileno(self) -> int:
            return 1 << 20

    decoders, found, clips = Decoders(1), dict[int, int](), {seconds: recording("flac", seconds) for seconds in (2, 3)}

    def hear(seconds: int) -> None:
        for _ in range(8):
            with opened(decoders, clips[seconds]) as heard:
                found[seconds] = found.get(seconds, 0) + sum(block.size for block in heard)

    threads = [threading.Thread(target=hear, args=(seconds,)) for seconds in clips]
    for thread in threads:
        thread.start()
    for _ in range(2):
        with pytest.raises(BrokenAudio):
            decoders.open(Gone(bytes(2 << 20)), max_audio_s=60)
    for thread in threads:
        thread.join(timeout=60)
    assert found == {seconds: 8 * 16_000 * seconds for seconds in clips}
    decoders.close()


def test_another_app_in_the_folder_where_the_service_starts_is_not_theirs(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__init__.py").write_text("raise RuntimeError('not ours')")
    (tmp_path / "clip.flac").write_bytes(recording("flac", 2.0))
    program = """
        from app.audio.pool import Decoders
        with open("clip.flac", "rb") as file, Decoders(1).open(file, max_audio_s=60) as heard:
            print(sum(block.size for block in heard))
    """
    called = [sys.executable, "-P", "-c", textwrap.dedent(program)]  # as the script `tongues`: without this folder
    assert subprocess.run(called, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "32000\n"


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
