"""``POST /transcribe``: speech in, words out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.formats import PLAIN, Told, as_json, as_verbose_json
from app.recognition import choose, decoding_of, recognise
from app.schemas import TranscribeQuery, TranscriptOut
from app.service import service_of
from app.upload import merged, receive_upload, validated

router = APIRouter(tags=["transcribe"])

_AUDIO = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            **{name: {"type": "string"} for name in TranscribeQuery.model_fields},
        },
    }
}
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": _FORM, "audio/*": _AUDIO}}
}


@router.post("/transcribe", response_model=TranscriptOut, openapi_extra=_BODY)
async def transcribe(request: Request, query: Annotated[TranscribeQuery, Query()]) -> Response:
    """What is said in a recording: the body is the audio itself, or a form with it in `file`.

    Parameters may stand in the query or in the form. Any container and codec that FFmpeg knows, at any sample rate.
    """
    service = service_of(request)
    engine = service.engine
    known = choose(engine, query.lang, query.adapter) if query.lang or query.adapter else ()
    with engine.admit(), engine.holding(*known):
        async with receive_upload(request, service.settings) as upload:
            full = validated(TranscribeQuery, merged(request, upload.fields))
            if not known or (full.lang, full.adapter) != (query.lang, query.adapter):  # the form said more
                known = choose(engine, full.lang, full.adapter)
            decoding = decoding_of(full.decode, full.hotwords)
            told = await recognise(request, engine, known, upload.file, decoding)
    return _answer(told, full)


def _answer(told: Told, query: TranscribeQuery) -> Response:
    headers = {"Content-Language": told.language}
    if query.format in PLAIN:
        render, media_type = PLAIN[query.format]
        headers["X-Truncated"] = str(told.truncated).lower()
        return Response(render(told.transcript), media_type=media_type, headers=headers)
    content = as_verbose_json(told) if query.format == "verbose_json" else as_json(told, words=query.words)
    return JSONResponse(content, headers=headers)
