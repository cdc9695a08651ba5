"""``GET /adapters``: what is registered, where it is, and what it was published with."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from app.listing import listed, listing
from app.schemas import AdapterOut, AdaptersOut
from app.service import service_of

router = APIRouter(prefix="/adapters", tags=["adapters"])


@router.get("", response_model=AdaptersOut)
async def adapters(request: Request) -> AdaptersOut:
    """Every adapter by name. One that cannot be worn is there too, as `failed` with the reason."""
    engine = service_of(request).engine
    return AdaptersOut(adapters=listing(engine.registry, engine.residency.where))


@router.get("/{name}", response_model=AdapterOut)
async def adapter(request: Request, name: str) -> AdapterOut:
    """One adapter."""
    engine = service_of(request).engine
    return listed(engine.registry, engine.residency.where, name)
