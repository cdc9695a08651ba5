"""What both transcription routes do with an upload, whatever they make of the words."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from anyio import to_thread
from starlette.requests import Request

from adapters.decoding import GREEDY, Decoding
from adapters.errors import BankFull, LanguageRequired
from app.audio.pool import Decoders
from app.audio.recording import Recording
from app.errors import BadCombination, BadParameter, ClientGone
from app.formats import Told, Tried
from app.metrics import AUDIO_SECONDS, TRUNCATED
from app.service import service_of
from app.trace import trace_of

if TYPE_CHECKING:
    from adapters.registry import RegisteredAdapter
    from app.engine.engine import Engine
    from app.engine.hearing import Answer

T = TypeVar("T")
MOST_NAMED = 4
MOST_HOT_WORDS = 100


def choose(engine: Engine, lang: str | None, adapter: str | None) -> tuple[RegisteredAdapter, ...]:
    """The adapter that is meant, or one for each of several languages, in the versions that are current now. None where
    the language is to be told: ``auto``, or nothing at all.

    Raises :class:`BadParameter` for too many languages, :class:`~adapters.errors.LanguageRequired` where nothing can
    tell, and what :meth:`Registry.resolve` does.
    """
    registry = engine.registry
    language = None if lang is None or lang.strip().lower() in ("", "auto") else lang.strip()
    several = [tag.strip() for tag in (language or "").split(",") if tag.strip()]
    if not several and not adapter and engine.head is not None:
        return ()
    if len(several) > 1 and "auto" in map(str.lower, several):
        raise BadParameter("auto stands alone; or name the languages, as in lang=de,fr", "lang")
    if len(several) < 2:
        try:
            return (registry.resolve(language=several[0] if several else None, name=adapter or None),)
        except LanguageRequired as error:
            raise LanguageRequired(f"{error} ({engine.no_head})") from None
    if adapter:
        raise BadParameter("one adapter by its name, or several languages, not both", "adapter")
    if len(several) > MOST_NAMED:
        raise BadParameter(f"at most {MOST_NAMED} languages, not {len(several)}", "lang")
    found = [registry.resolve(language=tag) for tag in several]
    chosen = tuple({adapter.name: adapter for adapter in found}.values())
    try:
        engine.check_seats(chosen)
    except BankFull as error:
        raise BadParameter(str(error), "lang") from error
    return chosen


def decoding_of(decode: str | None, hotwords: str) -> Decoding:
    """What ``decode`` and ``hotwords`` of a request ask for. Raises :class:`BadCombination` for hot words without a
    beam search, and :class:`BadParameter` for too many."""
    listed = unicodedata.normalize("NFC", hotwords).split(",")
    words = tuple(dict.fromkeys(word.strip() for word in listed if word.strip()))
    if words and decode == "greedy":
        raise BadCombination("hot words go with decode=beam, or with no decode at all", "hotwords")
    if len(words) > MOST_HOT_WORDS:
        raise BadParameter(f"at most {MOST_HOT_WORDS} hot words, not {len(words)}", "hotwords")
    return Decoding(decode == "beam" or bool(words), words)


async def recognise(
    request: Request,
    engine: Engine,
    adapters: Sequence[RegisteredAdapter],
    file: BinaryIO,
    decoding: Decoding = GREEDY,
) -> Told:
    """Decode and transcribe ``file``, in the likeliest of ``adapters``, or of all where there are none.

    Raises :class:`~adapters.errors.AudioError` of every kind, what :meth:`Engine.hear` does, and :class:`ClientGone`,
    by which the engine drops what is left of the work.
    """
    service, trace = service_of(request), trace_of(request)
    with engine.holding(*adapters):
        async with _opened(service.decoders, file, service.settings.max_audio_s, request) as audio:
            with trace.stage("engine"):
                blocks = list(audio) if audio.whole else audio
                work = engine.hear(adapters, blocks, request_id=trace.job_id, decoding=decoding)
                answer = await _unless_gone(request, work)
    told = told_of(answer, truncated=audio.truncated, request_id=trace.request_id)
    trace.note(
        adapter=told.adapter,
        version=told.version,
        audio_s=round(told.transcript.duration_s, 2),
        truncated=audio.truncated,
    )
    AUDIO_SECONDS.labels(told.language).inc(told.transcript.duration_s)
    TRUNCATED.inc(audio.truncated)
    return told


def told_of(answer: Answer, *, truncated: bool, request_id: str) -> Told:
    """What is told of an answer of the engine's."""
    return Told(
        answer.transcript,
        language=answer.adapter.record.language,
        adapter=answer.adapter.name,
        version=answer.adapter.version,
        truncated=truncated,
        request_id=request_id,
        tried=tuple(
            Tried(ranked.adapter.record.language, ranked.adapter.name, ranked.score, ranked.probability)
            for ranked in answer.ranked
        ),
    )


@asynccontextmanager
async def _opened(decoders: Decoders, file: BinaryIO, max_audio_s: float, request: Request) -> AsyncIterator[Recording]:
    with trace_of(request).stage("open"):
        audio = await to_thread.run_sync(lambda: decoders.open(file, max_audio_s=max_audio_s))
    try:
        yield audio
    finally:
        if audio.whole:
            audio.close()
        else:
            await to_thread.run_sync(audio.close)  # waits for what is being decoded, so not on the loop


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
