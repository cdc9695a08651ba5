"""OpenAI's transcription contract, so that its clients work unchanged; ``model`` is an adapter's name, or ``auto``."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapters.language import language_name
from app.errors import BadBody, BadCombination
from app.formats import PLAIN, Segment, Told, languages, segments
from app.recognition import choose, decoding_of, recognise
from app.schemas import OpenAIModel, OpenAIModels, OpenAIQuery
from app.service import service_of
from app.upload import MULTIPART, receive_upload, validated

router = APIRouter(prefix="/v1", tags=["OpenAI's contract"])

_LISTS = ("timestamp_granularities", "include", "languages", "keywords")
_FORM = {
    "type": "object",
    "required": ["file", "model"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        **OpenAIQuery.model_json_schema()["properties"],
    },
}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {MULTIPART: {"schema": _FORM}}}}


@router.post("/audio/transcriptions", openapi_extra=_BODY, response_class=JSONResponse)
async def transcriptions(request: Request) -> Response:
    """What is said in a recording, as OpenAI's clients ask for it."""
    service = service_of(request)
    engine = service.engine
    if not request.headers.get("content-type", "").lower().startswith(MULTIPART):
        raise BadBody(f"send a form ({MULTIPART}) with the fields file and model", "file")
    with engine.admit():
        async with receive_upload(request, service.settings) as upload:
            query = _query(upload.fields)
            name = None if query.model == "auto" else query.model
            adapters = choose(engine, query.language or ",".join(query.languages), name)
            decoding = decoding_of(query.decode, ",".join([query.hotwords, *query.keywords]))
            told = await recognise(request, engine, adapters, upload.file, decoding)
    return _answer(told, query)


@router.head("/models", include_in_schema=False)
@router.get("/models", response_model=OpenAIModels)
async def models(request: Request) -> OpenAIModels:
    """The adapters, and `auto`: that of `language`, or else of the language that is told from the recording."""
    service = service_of(request)
    names = ["auto", *service.engine.registry.snapshot.adapters]
    return OpenAIModels(data=[_model(name, service.started_at) for name in names])


@router.head("/models/{name:path}", include_in_schema=False)
@router.get("/models/{name:path}", response_model=OpenAIModel)
async def model(request: Request, name: str) -> OpenAIModel:
    """One of them."""
    service = service_of(request)
    if name != "auto":
        name = service.engine.registry.resolve(name=name).name
    return _model(name, service.started_at)


def _model(name: str, created: int) -> OpenAIModel:
    return OpenAIModel(id=name, created=created, owned_by="tongues")


def _query(fields: dict[str, list[str]]) -> OpenAIQuery:
    """The last value of each field, all of those that repeat, with or without their brackets; empty is not given."""
    given: dict[str, object] = {name: values[-1] for name, values in fields.items() if values[-1] != ""}
    for name in _LISTS:
        given[name] = _every(fields, name)
    given["hotwords"] = ",".join(_every(fields, "hotwords"))
    query = validated(OpenAIQuery, given)
    if query.timestamp_granularities and query.response_format != "verbose_json":
        raise BadCombination(
            "timestamp_granularities goes with response_format=verbose_json", "timestamp_granularities"
        )
    if query.include and query.response_format != "json":
        raise BadCombination("include=logprobs goes with response_format=json", "include")
    if query.stream and query.response_format not in ("json", "text"):
        raise BadCombination("stream goes with response_format=json or text", "stream")
    return query


def _every(fields: dict[str, list[str]], name: str) -> list[str]:
    return [value for key in (name, f"{name}[]") for value in fields.get(key, []) if value != ""]


def _answer(told: Told, query: OpenAIQuery) -> Response:
    headers = {"Content-Language": told.language}
    if query.stream:
        events = _events(told, query)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store", **headers}
        )
    if query.response_format in PLAIN:
        render, media_type = PLAIN[query.response_format]
        headers["X-Truncated"] = str(told.truncated).lower()
        return Response(render(told.transcript), media_type=media_type, headers=headers)
    content = _verbose(told, query) if query.response_format == "verbose_json" else _json(told, query)
    return JSONResponse(content, headers=headers)


def _events(told: Told, query: OpenAIQuery) -> Iterator[str]:
    """A delta a segment, then the whole: the deltas one after the other are the text."""
    for number, segment in enumerate(segments(told.transcript)):
        yield _event({"type": "transcript.text.delta", "delta": (" " if number else "") + segment.text})
    done = _json(told, query)
    del done["usage"]  # of tokens alone, by the contract
    yield _event({"type": "transcript.text.done", **done})


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _json(told: Told, query: OpenAIQuery) -> dict[str, Any]:
    content: dict[str, Any] = {"text": told.transcript.text, "usage": _usage(told), **_ours(told)}
    if "logprobs" in query.include:
        content["logprobs"] = [
            {"token": token, "logprob": _log(word.confidence), "bytes": list(token.encode())}
            for number, word in enumerate(told.transcript.words)
            for token in [(" " if number else "") + word.text]
        ]
    return content


def _verbose(told: Told, query: OpenAIQuery) -> dict[str, Any]:
    transcript = told.transcript
    wanted = query.timestamp_granularities or ["segment"]
    content: dict[str, Any] = {
        "task": "transcribe",
        "language": language_name(told.language).lower(),
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
    }
    if "segment" in wanted:
        content["segments"] = [_segment(number, segment) for number, segment in enumerate(segments(transcript))]
    if "word" in wanted:
        content["words"] = [
            {"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3)}
            for word in transcript.words
        ]
    return {**content, "usage": _usage(told), **_ours(told)}


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    raw = segment.text.encode()
    return {
        "id": number,
        "seek": round(segment.start_s * 100),  # in frames of 10 ms
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": _log(segment.confidence),
        "compression_ratio": round(len(raw) / len(zlib.compress(raw)), 4) if raw else 0.0,
        "no_speech_prob": 0.0,
    }


def _usage(told: Told) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(told.transcript.duration_s)}


def _ours(told: Told) -> dict[str, Any]:
    """The language that answers, as the contract tells those that were heard, and what it has no word for."""
    return {
        "languages": [{"code": told.language}],
        "adapter": told.adapter,
        "version": told.version,
        "truncated": told.truncated,
        **({"candidates": each} if (each := languages(told)) else {}),
    }


def _log(confidence: float) -> float:
    return round(math.log(max(confidence, 1e-6)), 4)
