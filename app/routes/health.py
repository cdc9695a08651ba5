"""Probes, and metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.metrics import READY, record_engine
from app.schemas import Health
from app.service import service_of

router = APIRouter(tags=["health"])


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", response_model=Health, responses={503: {"model": Health}})
async def live(request: Request) -> Response:
    """Whether the process is worth keeping: 200 at once, 503 where the model could not be loaded or its device
    computes no more."""
    health = service_of(request).health()
    return _answer(health, failed=health.status == "failed")


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", response_model=Health, responses={503: {"model": Health}})
async def ready(request: Request) -> Response:
    """Whether requests can be sent here: 200 once the model is warm, 503 with the reason before and when draining."""
    health = service_of(request).health()
    return _answer(health, failed=health.status != "ok")


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Every metric in Prometheus' text format."""
    service = service_of(request)
    READY.set(service.health().status == "ok")
    if service.loaded is not None:
        record_engine(service.loaded)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _answer(health: Health, *, failed: bool) -> Response:
    return JSONResponse(health.model_dump(exclude_none=True), status_code=503 if failed else 200)
