"""The application: routes, the one shape of errors, and an engine that loads behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app.errors import add_error_handlers
from app.routes import adapters, health, openai, transcribe
from app.schemas import FaultBody
from app.service import Service, make_engine
from app.settings import Settings
from app.trace import TraceRequests

if TYPE_CHECKING:
    from app.engine.engine import Engine


def create_app(
    settings: Settings,
    *,
    make: Callable[[Settings], Engine] = make_engine,
    on_ready: Callable[[], None] | None = None,
    on_failure: Callable[[], None] | None = None,
) -> FastAPI:
    """An app of its own for ``settings``; ``on_ready`` is called once its model is warm, ``on_failure`` where it cannot
    be loaded."""
    service = Service(settings, make, on_ready, on_failure)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Behind the door: /health/live answers at once, /health/ready once the engine is warm.
        starting = asyncio.create_task(service.start())
        try:
            yield
        finally:
            service.give_up()
            await asyncio.gather(starting, return_exceptions=True)
            await service.drain()

    app = FastAPI(
        title="Tongues",
        summary="Speech recognition in many languages at once: one backbone, a small adapter a language.",
        version=_version(),
        lifespan=lifespan,
        responses={"4XX": {"model": FaultBody}, "5XX": {"model": FaultBody}},
    )
    app.state.service = service
    app.add_middleware(TraceRequests)
    add_error_handlers(app)
    for routes in (transcribe, adapters, openai, health):
        app.include_router(routes.router)
    return app


def _version() -> str:
    try:
        return version("tongues")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
