from __future__ import annotations

import os
import socket
import tempfile
import threading

import pytest

from app.audio.wire import receive, send


def test_fields_content_and_file_come_through() -> None:
    here, there = socket.socketpair()
    content = bytes(range(256)) * 8_000  # more than the socket holds
    with here, there, tempfile.TemporaryFile() as file:
        file.write(b"what lies in it")
        file.flush()
        sending = threading.Thread(target=send, args=(here, {"do": "open"}, content, file.fileno()))
        sending.start()
        first = receive(there)
        sending.join()
        send(here, {"é": 1})
        second = receive(there)
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
