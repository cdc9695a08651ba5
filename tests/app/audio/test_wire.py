from __future__ import annotations

import json
import os
import socket
import tempfile
import threading

import pytest

from app.audio.wire import Answer, receive, send


def test_fields_content_and_file_come_through() -> None:
    here, there = socket.socketpair()
    content = bytes(range(256)) * 8_000  # more than the socket holds
    with here, there, tempfile.TemporaryFile() as file:
        file.write(b"what lies in it")
        file.flush()
        sending = threading.Thread(target=send, args=(here, {"do": "open"}, content, file.fileno()))
        sending.start()
        first = receive(there, files=True)
        sending.join()
        send(here, {"é": 1})
        second = receive(there, files=True)
        assert (first.fields, bytes(first.content)) == ({"do": "open"}, content)
        assert (second.fields, len(second.content), second.file) == ({"é": 1}, 0, None)
        assert first.file is not None
        with os.fdopen(first.file, "rb") as received:
            received.seek(0)
            assert received.read() == b"what lies in it"


def test_what_is_no_message_is_not_waited_for() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"\xff" * 8)
        with pytest.raises(ValueError, match="a message of"):
            receive(there)


@pytest.mark.parametrize("sent", [0, 3, 8, 9, 15])
def test_an_end_and_half_a_message(sent: int) -> None:
    here, there = socket.socketpair()
    whole, copy = socket.socketpair()
    with there, whole, copy:
        send(whole, {}, b"abcdef")
        with here:
            here.sendall(copy.recv(100)[:sent])
        with pytest.raises(EOFError):
            receive(there)


def test_a_file_that_is_not_taken_leaves_nothing_open() -> None:
    here, there = socket.socketpair()
    with here, there, tempfile.TemporaryFile() as file:
        open_before = len(os.listdir("/dev/fd"))
        for _ in range(5):
            send(here, {}, file=file.fileno())
            assert receive(there).file is None
        assert len(os.listdir("/dev/fd")) == open_before


def test_an_answer_comes_back_as_it_was() -> None:
    for answer in (Answer(7), Answer(8, True, ("BrokenAudio", "é"), 1.5, True)):
        assert Answer.of(json.loads(json.dumps(answer.fields))) == answer


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        {**Answer(1).fields, "more": 1},
        {**Answer(1).fields, "number": "1"},
        {**Answer(1).fields, "error": ["BrokenAudio"]},
        {**Answer(1).fields, "error": ["BrokenAudio", 3]},
        {**Answer(1).fields, "duration_s": None},
    ],
)
def test_what_is_no_answer(fields: object) -> None:
    with pytest.raises(ValueError, match=r"an (answer|error)"):
        Answer.of(fields)
