"""What both transcription routes do with an upload, whatever they make of the words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from anyio import to_thread
from starlette.requests import Request

from app.audio import AudioSource
from app.errors import BadParameter, ClientGone
from app.formats import Told
from app.metrics import AUDIO_SECONDS, TRUNCATED
from app.service import service_of
from app.trace import trace_of

if TYPE_CHECKING:
    from adapters.registry import RegisteredAdapter, Registry
    from app.engine.engine import Engine

T = TypeVar("T")


def choose(registry: Registry, lang: str | None, adapter: str | None) -> RegisteredAdapter:
    """The adapter that is meant, and the version of it that is current now.

    Raises :class:`BadParameter` for several languages, and what :meth:`Registry.resolve` does. ``auto`` counts as no
    language, since nothing here can tell one from another.
    """
    if lang is not None and len(several := [tag for tag in lang.split(",") if tag.strip()]) > 1:
        raise BadParameter(f"one language at a time, not {len(several)}: lang={several[0].strip()[:20]}", "lang")
    language = None if lang is None or lang.strip().lower() in ("", "auto") else lang.strip()
    return registry.resolve(language=language, name=adapter or None)


async def recognise(request: Request, engine: Engine, adapter: RegisteredAdapter, file: BinaryIO) -> Told:
    """Decode and transcribe ``file``.

    Raises :class:`~adapters.errors.AudioError` of every kind, what :meth:`Engine.transcribe` does, and
    :class:`ClientGone`, by which the engine drops what is left of the work.
    """
    settings, trace = service_of(request).settings, trace_of(request)
    trace.note(adapter=adapter.name, version=adapter.version)
    with engine.holding(adapter):
        async with _opened(file, settings.max_audio_s, request) as audio:
            with trace.stage("engine"):
                work = engine.transcribe(adapter, audio, request_id=trace.job_id)
                transcript = await _unless_gone(request, work)
    trace.note(audio_s=round(transcript.duration_s, 2), truncated=audio.truncated)
    AUDIO_SECONDS.labels(adapter.record.language).inc(transcript.duration_s)
    TRUNCATED.inc(audio.truncated)
    return Told(
        transcript,
        language=adapter.record.language,
        adapter=adapter.name,
        version=adapter.version,
        truncated=audio.truncated,
        request_id=trace.request_id,
    )


@asynccontextmanager
async def _opened(file: BinaryIO, max_audio_s: float, request: Request) -> AsyncIterator[AudioSource]:
    with trace_of(request).stage("open"):
        audio = await to_thread.run_sync(lambda: AudioSource(file, max_audio_s=max_audio_s))
    try:
        yield audio
    finally:
        await to_thread.run_sync(audio.close)  # waits for a block that is being decoded, so not on the loop


async def _unless_gone(request: Request, work: Coroutine[None, None, T]) -> T:
    """The result of ``work``, which is cancelled when the client hangs up."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone("the client hung up")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()  # both have ended before the audio is closed
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
