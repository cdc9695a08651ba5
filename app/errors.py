"""Which status an error has, and the one shape in which all of them are told.

    {"error": {"message", "type", "param", "code"}}

``TABLE`` is the whole mapping; the handlers at the end bring errors of every source into the shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match

from adapters import errors as method
from app.metrics import ERRORS
from app.schemas import TranscribeQuery

INVALID, OVERLOADED, SERVER = "invalid_request_error", "rate_limit_error", "server_error"
_SHOWN = 80
_OPENAI = "/v1/"
_OPENAI_PARAMS = {"lang": "language", "adapter": "model"}


class RequestError(method.TonguesError):
    """What was asked makes no sense, whatever the audio. ``param`` names the parameter that is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BadParameter(RequestError):
    """A parameter that is not known, or a value that it cannot have."""


class BadCombination(RequestError):
    """Parameters that are right each, but not with one another."""


class BadBody(RequestError):
    """A body that is not of the form that its headers say."""


class NotHttp(RequestError):
    """What came is no request."""


class SlowUpload(RequestError):
    """Nothing of the body came for too long."""


class BadAdapter(RequestError):
    """An adapter that was sent and cannot be served."""


class AdapterTooLarge(RequestError):
    """An adapter of more bytes than are accepted."""


class NotAllowed(RequestError):
    """The admin key is missing or another."""


class PublishingOff(RequestError):
    """No admin key is set."""


class NoRoom(method.TonguesError):
    """An upload cannot be kept for as long as it is worked on."""


class Starting(method.EngineError):
    """The model is being loaded."""


class ClientGone(method.TonguesError):
    """Nobody is there to read an answer."""


@dataclass(frozen=True)
class Kind:
    """What a class of errors is over HTTP. ``param`` is used where the error itself names none."""

    status: int
    code: str
    param: str | None = None
    retry_after_s: float | None = None
    #: clients of OpenAI's kind retry 409 and 5xx, with the whole upload: False where that is sure to fail again
    retry: bool = True

    @property
    def type(self) -> str:
        """OpenAI's three kinds of errors."""
        if self.status == 429:
            return OVERLOADED
        return INVALID if self.status < 500 else SERVER


TABLE: Mapping[type[Exception], Kind] = {
    method.EmptyAudio: Kind(400, "empty_audio", "file"),
    method.BrokenAudio: Kind(400, "broken_audio", "file"),
    method.NotAudio: Kind(415, "not_audio", "file"),
    method.NoAudioTrack: Kind(415, "no_audio_track", "file"),
    method.AudioTooShort: Kind(400, "audio_too_short", "file"),
    method.AudioTooLong: Kind(413, "audio_too_long", "file"),
    method.AudioTooLarge: Kind(413, "audio_too_large", "file"),
    method.LanguageRequired: Kind(400, "language_required", "lang"),
    method.UnknownLanguage: Kind(404, "unknown_language", "lang"),
    method.UnknownAdapter: Kind(404, "unknown_adapter", "adapter"),
    method.AmbiguousLanguage: Kind(409, "ambiguous_language", "lang", retry=False),
    method.AdapterError: Kind(503, "adapter_unusable", "adapter", retry=False),
    method.AdapterAway: Kind(503, "adapter_away", "adapter", retry_after_s=5),
    method.BackboneError: Kind(503, "backbone_unusable", retry=False),
    method.HubError: Kind(503, "hub_away", retry_after_s=5),
    method.DecodingUnavailable: Kind(400, "decoding_unavailable", "decode"),
    method.BadHotWord: Kind(422, "bad_hot_word", "hotwords"),
    method.BankFull: Kind(503, "no_free_seat", retry_after_s=1),
    method.QueueFull: Kind(429, "queue_full", retry_after_s=1),
    method.Draining: Kind(503, "shutting_down", retry_after_s=5),
    method.NoDecoder: Kind(503, "no_decoder", retry_after_s=5),
    Starting: Kind(503, "starting", retry_after_s=2),
    method.DeadlineExceeded: Kind(504, "deadline_exceeded", retry=False),
    BadParameter: Kind(422, "bad_parameter"),
    BadCombination: Kind(400, "bad_combination"),
    BadBody: Kind(400, "bad_body"),
    NotHttp: Kind(400, "not_http"),
    BadAdapter: Kind(422, "bad_adapter"),
    AdapterTooLarge: Kind(413, "adapter_too_large"),
    NotAllowed: Kind(401, "not_allowed"),
    PublishingOff: Kind(403, "publishing_off"),
    method.StoreError: Kind(507, "store_not_writable", retry=False),
    method.StoreAway: Kind(503, "store_away", retry_after_s=5),
    method.PublishConflict: Kind(412, "publish_conflict", retry=False),
    NoRoom: Kind(507, "no_room", "file", retry_after_s=5),
    SlowUpload: Kind(408, "upload_stalled", "file"),
    ClientGone: Kind(499, "client_gone"),
    ClientDisconnect: Kind(499, "client_gone"),
}

_INTERNAL = Kind(500, "internal_error", retry=False)


def kind_of(error: Exception) -> Kind:
    """The entry of the nearest class."""
    return next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), _INTERNAL)


def error_response(error: Exception, request: Request | None = None) -> JSONResponse:
    """What a client is told of ``error``. The text of an error that is not in the table stays here."""
    kind = kind_of(error)
    message = str(error) if kind is not _INTERNAL else "something went wrong here; it was logged with the request id"
    headers = {} if kind.retry else {"X-Should-Retry": "false"}
    retry_after_s = getattr(error, "retry_after_s", kind.retry_after_s)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    param = getattr(error, "param", None) or kind.param
    if request is not None and request.url.path.startswith(_OPENAI):
        param = _OPENAI_PARAMS.get(param or "", param)
    return _shaped(kind, message, param, headers)


def validation_message(errors: Sequence[Mapping[str, Any]], known: Iterable[str] = ()) -> tuple[str, str | None]:
    """Pydantic's first complaint as a sentence, and the parameter that it is about; ``known`` are those there are."""
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("query", "body", "path", "form", "header")]
    param = place[0] if place else None
    given = first.get("input")
    if first["type"] == "extra_forbidden":
        return f"there is no parameter {str(param)[:_SHOWN]!r}; there are {', '.join(known)}", param
    if first["type"] == "bool_parsing":
        first = {**first, "msg": "should be true or false"}
    secret = param == "admin_key"  # what is told goes to logs
    shown = f", not {str(given)[:_SHOWN]!r}" if isinstance(given, str | int | float) and not secret else ""
    what = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    return (f"{param}: " if param else "") + what + shown, param


def add_error_handlers(app: FastAPI) -> None:
    """Every error that a route, the router or validation raises, in the one shape."""
    for kind in (method.TonguesError, ClientDisconnect):
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _known(request: Request, error: Exception) -> JSONResponse:
    _note(request, kind_of(error))
    return error_response(error, request)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return await _known(request, BadParameter(*validation_message(error.errors(), TranscribeQuery.model_fields)))


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What the router raises: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    messages = {404: f"no such path: {request.url.path[:_SHOWN]}; /docs lists those that there are"}
    if error.status_code == 405:
        possible = ", ".join(_methods(request))
        messages[405] = f"{request.method} is not possible here; {possible} is"
        headers["Allow"] = possible
    codes = {404: "no_such_path", 405: "method_not_allowed"}
    message = messages.get(error.status_code, str(error.detail))
    code = codes.get(error.status_code, "http_error")
    kind = Kind(error.status_code, code)
    _note(request, kind)
    return _shaped(kind, message, None, headers)


def _methods(request: Request) -> list[str]:
    """Those that the path of a request takes."""
    routes = request.app.router.routes
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _note(request: Request, kind: Kind) -> None:
    """For the request's line in the log."""
    if trace := getattr(request.state, "trace", None):
        trace.note(error=kind.code)


def _shaped(kind: Kind, message: str, param: str | None, headers: Mapping[str, str]) -> JSONResponse:
    ERRORS.labels(kind.code).inc()
    content = {"error": {"message": message, "type": kind.type, "param": param, "code": kind.code}}
    return JSONResponse(content, status_code=kind.status, headers=dict(headers))
