"""A body on its way in: counted while it is read, and kept in memory or, where large, in a file without a name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, TypeVar, cast

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from adapters.errors import AudioTooLarge, TonguesError
from app.errors import BadBody, BadParameter, NoRoom, SlowUpload, validation_message
from app.metrics import UPLOAD_BYTES
from app.settings import Settings
from app.trace import trace_of

_IN_MEMORY_BYTES = 1 << 20
_MAX_FIELDS = 200  # a list comes as a field for each of its parts, a hundred hot words say
_MAX_FIELD_BYTES = 64 << 10
_FORM_BYTES = 256 << 10  # what a form may weigh besides its file
MULTIPART = "multipart/form-data"
_LOG = logging.getLogger("tongues")

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Upload:
    """The audio as sent, and the other fields of the form, if there was one, each with all of its values."""

    file: BinaryIO
    fields: dict[str, list[str]]


@asynccontextmanager
async def receive_upload(request: Request, settings: Settings) -> AsyncIterator[Upload]:
    """Read the body: a form with the audio in ``file``, or, of any other type, the audio itself.

    Raises :class:`AudioTooLarge` as soon as there is too much, :class:`SlowUpload`, :class:`BadBody` for a form that
    is none, :class:`BadParameter` for a form without ``file``, and :class:`NoRoom`. Leaving the context removes what
    was kept.
    """
    max_bytes = settings.max_upload_bytes
    too_large = _too_large(max_bytes)
    is_form = request.headers.get("content-type", "").lower().startswith(MULTIPART)
    limit = max_bytes + (_FORM_BYTES if is_form else 0)
    chunks = _bounded(request, limit, settings, too_large)
    async with AsyncExitStack() as kept:
        try:
            with trace_of(request).stage("read"):
                if is_form:
                    form = await _parse(request, chunks, files=1)
                    kept.push_async_callback(form.close)
                    upload = _upload_of(form, max_bytes)
                else:
                    upload = Upload(await _spooled(kept, chunks), {})
        except OSError as error:
            _LOG.error("an upload cannot be kept: %s", error)
            raise NoRoom("there is no room here for the upload: ask again in a while, or send less") from error
        yield upload


async def receive_files(
    request: Request, settings: Settings, limit: int, too_large: TonguesError, *, count: int
) -> dict[str, bytes]:
    """The files of a form of at most ``count`` of them, by their fields; other fields are passed over.

    Raises ``too_large`` beyond ``limit`` bytes in all, :class:`SlowUpload`, and :class:`BadBody` for no such form.
    """
    if not request.headers.get("content-type", "").lower().startswith(MULTIPART):
        raise BadBody(f"send a form ({MULTIPART})")
    form = await _parse(request, _bounded(request, limit + _FORM_BYTES, settings, too_large), files=count)
    try:
        return {name: await value.read() for name, value in form.multi_items() if isinstance(value, UploadFile)}
    finally:
        await form.close()


def merged(request: Request, fields: Mapping[str, list[str]]) -> dict[str, str]:
    """Parameters of the query and of the form, of which each may be given once, or twice with one value.

    Raises :class:`BadParameter` where two values are given.
    """
    given: dict[str, str] = {}
    for name, value in (*request.query_params.multi_items(), *((n, v) for n, values in fields.items() for v in values)):
        if given.setdefault(name, value) != value:
            raise BadParameter(f"{name} is given twice, as {given[name][:40]!r} and as {value[:40]!r}", name)
    return given


def validated(model: type[Model], given: Mapping[str, object]) -> Model:
    """``given`` as a ``model``. Raises :class:`BadParameter` with what is wrong first."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise BadParameter(*validation_message(error.errors(), model.model_fields)) from error


async def _bounded(
    request: Request, limit: int, settings: Settings, too_large: TonguesError
) -> AsyncGenerator[bytes, None]:
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limit:
        raise too_large
    count, idle_s, now = 0, settings.upload_idle_s, asyncio.get_running_loop().time
    deadline = now() + settings.request_timeout_s
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(min(deadline, now() + idle_s)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            late = f"the body did not come within {settings.request_timeout_s:g} s, or nothing of it for {idle_s:g} s"
            raise SlowUpload(late) from None
        count += len(chunk)
        UPLOAD_BYTES.inc(len(chunk))
        if count > limit:
            raise too_large
        yield chunk


def _too_large(max_bytes: int) -> AudioTooLarge:
    return AudioTooLarge(
        f"more than the {max_bytes} bytes that are accepted: compress it (Opus, FLAC) or send it in parts"
    )


async def _spooled(kept: AsyncExitStack, chunks: AsyncGenerator[bytes, None]) -> BinaryIO:
    file = cast(BinaryIO, kept.enter_context(SpooledTemporaryFile(_IN_MEMORY_BYTES)))  # noqa: SIM115 - it stays for the request
    upload = UploadFile(file, size=0)  # writes in a thread once the file is on disk
    async for chunk in chunks:
        await upload.write(chunk)
    return file


async def _parse(request: Request, chunks: AsyncGenerator[bytes, None], *, files: int) -> FormData:
    try:
        parser = MultiPartParser(
            request.headers, chunks, max_files=files, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
        return await parser.parse()
    except (MultiPartException, FormParserError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it cannot be parsed"
        raise BadBody(f"the form is not as it should be: {reason}") from error
    except UnicodeError as error:  # Python's codec `undefined`
        raise BadBody(
            "the form cannot be read in the charset of its Content-Type: leave that out, or send utf-8"
        ) from error


def _upload_of(form: FormData, max_bytes: int) -> Upload:
    fields: dict[str, list[str]] = {}
    files: dict[str, UploadFile] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files[name] = value
        else:
            fields.setdefault(name, []).append(value)
    file = files.get("file")
    if file is None:
        there_is = f", not {next(iter(files))!r}" if files else ""
        raise BadParameter(f"the audio belongs in the field 'file', as a file (-F file=@clip.wav){there_is}", "file")
    if file.size is not None and file.size > max_bytes:
        raise _too_large(max_bytes)
    return Upload(file.file, fields)
