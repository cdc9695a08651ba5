"""uvicorn, and what it does not do by itself: refusals in the one shape where a request is no HTTP, and an end in which
new requests are told to go elsewhere while those that run are answered."""

from __future__ import annotations

import logging
import time
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.errors import NotHttp, error_response
from app.service import Service
from app.settings import Settings

_KEEP_ALIVE_S = 75  # longer than clients (httpx 5 s) and load balancers (mostly 60 s) keep a connection for its next
# request: whoever lets go first must be the one that sends, or a request goes into a connection that is being closed
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
                log_config=None,
                access_log=False,  # a line a request comes from app.trace
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_S,
                server_header=False,
            )
        )
        self._service, self._drain_s = service, settings.drain_s
        self._told_at: float | None = None

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
    """HTTP/1.1 by h11."""

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
