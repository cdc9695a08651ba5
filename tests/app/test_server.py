"""Connections: which are kept, and for how long."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.server
from app.settings import Settings
from tests.app.live import Live, answer, serving
from tests.app.recordings import tone, wav

UPLOAD = wav(tone(2.0))
POST = f"POST /transcribe?lang={{}} HTTP/1.1\nHost: x\nContent-Length: {len(UPLOAD)}"


@pytest.fixture(scope="module")
def hasty(model_folder: Path) -> Iterator[Live]:
    """A server that waits for a request for a second."""
    with pytest.MonkeyPatch.context() as patch, serving(Settings.read(models=model_folder, lanes=1)) as live:
        patch.setattr(app.server, "WAITS_S", 1.0)
        yield live


def ends(connection: socket.socket) -> bool:
    """Whether the server ends ``connection``, sooner than its client would give up."""
    connection.settimeout(20)
    return connection.recv(1) == b""


@pytest.mark.parametrize("sent", [b"", b"GET /health/li"])
def test_a_connection_without_a_request_ends(hasty: Live, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port)) as connection:
        connection.sendall(sent)
        assert ends(connection)


@pytest.mark.parametrize("part", [0, 1000, len(UPLOAD)])
def test_a_connection_ends_whose_body_comes_after_the_refusal(hasty: Live, part: int) -> None:
    with hasty.connect(POST.format("xx")) as connection:
        assert answer(connection)[0] == 404
        connection.sendall(UPLOAD[:part])
        assert ends(connection)


def test_a_connection_whose_body_came_after_the_refusal_takes_the_next_request(live: Live) -> None:
    with live.connect(POST.format("xx")) as connection:
        assert answer(connection)[0] == 404
        connection.sendall(UPLOAD + POST.format("es").replace("\n", "\r\n").encode() + b"\r\n\r\n" + UPLOAD)
        assert answer(connection)[0] == 200


def test_a_request_to_go_on_as_a_websocket_is_answered_as_any_other(live: Live) -> None:
    with live.connect("GET /transcribe HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket") as connection:
        status, told = answer(connection)
    assert (status, told["error"]["code"]) == (405, "method_not_allowed")
