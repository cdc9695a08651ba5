"""What happened to a request, and when: one line in the log, headers on the answer, and the metrics, all from here."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import Draining
from app.errors import error_response, kind_of
from app.metrics import REQUEST_SECONDS, REQUESTS, REQUESTS_RUNNING, STAGE_SECONDS

REQUEST_ID = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PLAIN = re.compile(r"[A-Za-z0-9._:/+-]+")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_IDS = random.Random()  # seeded by the kernel, which uuid4 asks each time, for a tenth of a millisecond
_LOG = logging.getLogger("tongues.request")


@dataclass
class Trace:
    """One request: its id, the seconds that its stages took, and what else its line in the log shall say."""

    request_id: str
    job_id: str  #: begins with the request id, and is unique even where two clients send one id
    stages_s: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            taken_s = time.perf_counter() - begin
            self.stages_s[name] = self.stages_s.get(name, 0.0) + taken_s
            STAGE_SECONDS.labels(name).observe(taken_s)

    def note(self, **notes: Any) -> None:
        """Say more in the log line."""
        self.notes.update(notes)


def trace_of(request: Request) -> Trace:
    """The trace that :class:`TraceRequests` gave to ``request``."""
    trace: Trace = request.state.trace
    return trace


class TraceRequests:
    """Gives each request its trace, takes over a sane ``X-Request-Id``, and answers where nothing else did."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        fresh = f"{_IDS.getrandbits(128):032x}"
        trace = Trace(given, f"{given}~{fresh}") if _SANE_ID.fullmatch(given) else Trace(fresh, fresh)
        scope.setdefault("state", {})["trace"] = trace
        status: int | None = None

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = trace.request_id
            await send(message)

        begin = time.perf_counter()
        REQUESTS_RUNNING.inc()
        try:
            await self.app(scope, receive, send_traced)
        except asyncio.CancelledError:  # the server ends, and cannot wait for it any longer
            if status is not None:
                raise
            late = Draining(
                "shutting down, and this took longer than it could wait: ask again, another one will answer"
            )
            trace.note(error=kind_of(late).code)
            await error_response(late)(scope, receive, send_traced)
        except Exception as error:
            _LOG.exception("request id=%s failed", trace.request_id)
            if status is not None:  # the answer has begun: all that is left is to break it off
                raise
            await error_response(error)(scope, receive, send_traced)
        finally:
            REQUESTS_RUNNING.dec()
            _tell(scope, trace, status or 499, time.perf_counter() - begin)


def _tell(scope: Scope, trace: Trace, status: int, taken_s: float) -> None:
    route = getattr(scope.get("route"), "path", "none")  # as declared: paths as sent would be labels without end
    REQUESTS.labels(route, scope["method"] if scope["method"] in _METHODS else "other", str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(taken_s)
    fields = {
        "id": trace.request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "total_s": round(taken_s, 4),
        **{f"{name}_s": round(seconds, 4) for name, seconds in trace.stages_s.items()},
        **trace.notes,
    }
    quiet = route.startswith(("/health", "/metrics"))
    _LOG.log(logging.DEBUG if quiet else logging.INFO, "request %s", " ".join(map(_pair, fields.items())))


def _pair(field: tuple[str, Any]) -> str:
    name, value = field
    text = str(value)
    return f"{name}={text if _PLAIN.fullmatch(text) else json.dumps(text)}"
