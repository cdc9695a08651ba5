"""``/adapters``: what is registered and where it is; versions that come and go while others are served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from adapters.errors import AdapterAway, AdapterError
from app.admin import check_admin, instead_of, receive_adapter
from app.engine.engine import Engine
from app.errors import BadAdapter
from app.listing import listed, listing
from app.schemas import AdapterOut, AdaptersOut
from app.service import service_of

router = APIRouter(prefix="/adapters", tags=["adapters"])

_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["adapter.json", "weights", "vocab"],
        "properties": {"adapter.json": _FILE, "weights": _FILE, "vocab": _FILE, "language_model": _FILE},
    }
}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": _FORM}}}


@router.head("", include_in_schema=False)
@router.get("", response_model=AdaptersOut)
async def adapters(request: Request) -> AdaptersOut:
    """Every adapter by name. One that cannot be worn is there too, as `failed` with the reason."""
    engine = service_of(request).engine
    return AdaptersOut(adapters=listing(engine.registry, engine.where, engine.head))


@router.head("/{name}", include_in_schema=False)
@router.get("/{name}", response_model=AdapterOut)
async def adapter(request: Request, response: Response, name: str) -> AdapterOut:
    """One adapter; its version is the `ETag`."""
    return _told(service_of(request).engine, name, response)


@router.put("/{name}", response_model=AdapterOut, status_code=201, openapi_extra=_BODY)
async def publish(request: Request, response: Response, name: str) -> AdapterOut:
    """Publish a version: its adapter.json and the files that it names. Served when the answer comes.

    Needs the admin key as a bearer token. `If-Match` with a version replaces that one alone, `If-None-Match: *` none.
    """
    service = service_of(request)
    check_admin(request, service.settings)
    engine, condition = service.engine, instead_of(request)
    await engine.publishing.check(name, condition)  # before a large upload
    sent = await receive_adapter(request, service.settings)
    try:
        await engine.publishing.put(name, sent.record, sent.files, instead_of=condition)
    except AdapterAway:
        raise
    except AdapterError as error:
        raise BadAdapter(str(error)) from error
    return _told(engine, name, response)  # of this engine, which may be draining by now


@router.delete("/{name}", status_code=204)
async def remove(request: Request, name: str) -> Response:
    """Remove an adapter; requests that hold it are answered. Needs the admin key; `If-Match` as in publishing."""
    service = service_of(request)
    check_admin(request, service.settings)
    try:
        await service.engine.publishing.remove(name, instead_of=instead_of(request))
    except AdapterError as error:
        raise BadAdapter(str(error)) from error
    return Response(status_code=204)


def _told(engine: Engine, name: str, response: Response) -> AdapterOut:
    told = listed(engine.registry, engine.where, engine.head, name)
    if told.version is not None:
        response.headers["ETag"] = f'"{told.version}"'
    return told
