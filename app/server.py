"""uvicorn, and what it does not do by itself: refusals in the one shape where a request is no HTTP, and an end in which
new requests are told to go elsewhere while those that run are answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.errors import NotHttp, error_response
from app.service import Service
from app.settings import Settings

WAITS_S = 75
"""For the next request on a connection: longer than clients (httpx 5 s) and load balancers (mostly 60 s) keep one. Who
lets go first must be the one that sends, or a request goes into a connection that is being closed."""
_MOST_FILES = 65_536
_LAST_S = 1  # for answers that are on their way when the time to drain is over
_LOG = logging.getLogger("tongues")


class Server(uvicorn.Server):
    """``service`` behind ``app``. Told to stop, it takes no new requests (503), ends once those that run are answered,
    or after ``TONGUES_DRAIN_S``; told again, at once."""

    def __init__(self, app: object, service: Service, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                host=settings.host,
                port=settings.port,
                http=Protocol,
                ws="none",
                log_config=None,
                access_log=False,  # a line a request comes from app.trace
                timeout_keep_alive=WAITS_S,
                timeout_graceful_shutdown=_LAST_S,
                server_header=False,
            )
        )
        self._service, self._drain_s = service, settings.drain_s
        self._told_at: float | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Until told to stop."""
        _lift_limit_of_files()
        super().run(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop."""
        if self._told_at is not None:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self._told_at = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end now."""
        if self._told_at is not None and not self.should_exit:
            self._service.give_up()
            running = len(self.server_state.tasks)
            late = time.monotonic() >= self._told_at + self._drain_s
            if late and running:
                _LOG.warning("%d requests are not answered within %g s: they are given up", running, self._drain_s)
            self.should_exit = late or not running
        return await super().on_tick(counter)


class Protocol(H11Protocol):
    """HTTP/1.1 by h11. A connection ends where no request has come whole up to its body within :data:`WAITS_S`: after
    it was made, or after the answer to the one before, whose body may not have been read."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or of one that was answered before its end."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """An answer was sent."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        super().connection_lost(exc)
        self._wait()

    def _wait(self) -> None:
        running = not getattr(self.cycle, "response_complete", True)  # None before the first request
        if not (running or self.transport.is_closing()):
            self._late = self._late or self.loop.call_later(WAITS_S, self.timeout_keep_alive_handler)
        elif self._late is not None:
            self._late.cancel()
            self._late = None

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing is said: a request to go on as a WebSocket is answered as any other."""

    def send_400_response(self, msg: str) -> None:
        """To what is none."""
        answer = error_response(
            NotHttp(
                "the request is not HTTP/1.1 as it should be; letters other than ASCII are percent-encoded in an "
                "address, as in ?hotwords=ni%C3%B1o, or sent as fields of the form"
            )
        )
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _lift_limit_of_files() -> None:
    """A connection is a file, of which a shell allows 1,024; beyond them the service would answer nobody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
