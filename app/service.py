"""The engine of this process: being loaded, ready, failed, or draining."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

from adapters.errors import BackboneError, Draining, TonguesError
from app.audio.pool import Decoders
from app.cores import usable_cores
from app.errors import Starting
from app.metrics import record_step
from app.schemas import Health
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from app.engine.engine import Engine

_GPU_STEP_S, _GPU_SINGLES = 0.02, 2.0
_GPU_WINDOWS = 8  # of a recording, decoded as many at a time: two batches of four rows where it is alone
_CORES_A_DECODER = 4
_LOG = logging.getLogger("tongues")


def make_engine(settings: Settings) -> Engine:
    """The engine that ``settings`` describe, not started yet."""
    import torch

    from adapters.recogniser import computed_frames
    from app.engine.config import EngineConfig
    from app.engine.engine import Engine
    from app.engine.pace import Pace
    from app.engine.scheduler import CPU_BUDGET, GPU_BUDGET

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_cpu = device == "cpu"
    dtype = ("float32" if on_cpu else "float16") if settings.dtype == "auto" else settings.dtype
    usual = CPU_BUDGET if on_cpu else replace(GPU_BUDGET, computed=computed_frames)
    pace = Pace() if on_cpu else Pace(_GPU_STEP_S, CPU_BUDGET.max_frames, GPU_BUDGET.max_frames, _GPU_SINGLES)
    cores = usable_cores()
    lanes = settings.lanes or (cores if on_cpu else 1)
    config = EngineConfig(
        backbone=settings.backbone_source,
        stores=settings.adapter_stores,
        cache=settings.cache,
        cache_bytes=settings.cache_bytes,
        language_head=settings.models / "languages",
        device=device,
        dtype=getattr(torch, dtype),
        quantise=settings.quantise,
        lanes=lanes,
        threads=settings.threads or (max(1, cores // lanes) if on_cpu else 1),
        max_seats=settings.device_slots,
        pinned=settings.pinned,
        max_host_bytes=settings.host_bytes,
        watch_s=settings.watch_s or None,
        sweeps=settings.admin_key is not None,
        max_requests=settings.max_requests,
        windows_in_flight=EngineConfig.windows_in_flight if on_cpu else _GPU_WINDOWS,
        request_timeout_s=settings.request_timeout_s,
        budget=replace(
            usual,
            max_frames=settings.max_batch_frames or usual.max_frames,
            max_rows=settings.max_batch_rows or usual.max_rows,
        ),
        pace=pace if settings.max_batch_frames is None else None,
    )
    return Engine(config, on_step=record_step)


def _check(settings: Settings) -> None:
    """Raises :class:`~app.settings.SettingsError` for a GPU that is not there; folders may still come."""
    import torch

    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        version = torch.__version__
        raise SettingsError(f"TONGUES_DEVICE={settings.device}, and no GPU that PyTorch {version} can use is here")
    for store in settings.adapters:
        if isinstance(store, Path) and not store.exists():
            _LOG.warning("TONGUES_ADAPTERS: there is no folder %s yet", store)


class Service:
    """``make`` makes an engine, which :meth:`start` loads and warms up.

    ``on_ready`` is called once it is warm, ``on_failure`` where it cannot be had, which no waiting mends.
    """

    def __init__(
        self,
        settings: Settings,
        make: Callable[[Settings], Engine],
        on_ready: Callable[[], None] | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self.started_at = int(time.time())
        self.decoders = Decoders(settings.decoders or max(1, usable_cores() // _CORES_A_DECODER))
        self._make = make
        self._on_ready, self._on_failure = on_ready, on_failure
        self._engine: Engine | None = None
        self._starting: Engine | None = None
        self._failure: str | None = None
        self._draining = False

    async def start(self) -> None:
        """Load and warm up. A failure is kept, logged and told by :meth:`health`; it is not raised."""
        begin = time.perf_counter()
        try:
            self.decoders.start()
            await asyncio.to_thread(_check, self.settings)  # importing torch takes seconds
            engine = await asyncio.to_thread(self._make, self.settings)
            await asyncio.to_thread(self.decoders.wait_ready)
            self._starting = engine
            if not self._draining:
                await engine.start()
            self._starting = None
            if self._on_ready is not None and not self._draining:
                self._on_ready()
        except Exception as error:
            if self._draining:
                _LOG.info("the start was given up: %s", error)
                return
            self._failure = str(error) if isinstance(error, TonguesError) else f"{type(error).__name__}: {error}"
            _LOG.error("cannot serve: %s", self._failure, exc_info=not isinstance(error, TonguesError))
            if self._on_failure is not None:
                self._on_failure()
            return
        if self._draining and not engine.ready:
            return
        self._engine = engine
        names = len(engine.registry.snapshot.adapters)
        _LOG.info("ready after %.1f s: %s with %d adapters", time.perf_counter() - begin, engine.source, names)

    def give_up(self) -> None:
        """A start that goes on is of no use any more: it need not wait for what it downloads."""
        self._draining = True
        if self._starting is not None:
            self._starting.give_up()
        if self._engine is None:
            self.decoders.close()

    async def drain(self) -> None:
        """Take nothing new, finish what runs. The server has waited for requests before: those that are left wait for
        audio in vain."""
        self._draining = True
        await asyncio.to_thread(self.decoders.close)
        if self._engine is not None:
            await self._engine.drain()

    @property
    def failed(self) -> bool:
        """There will never be an engine."""
        return self._failure is not None

    @property
    def engine(self) -> Engine:
        """Raises :class:`Starting`, :class:`Draining`, or :class:`BackboneError` where there will never be one."""
        if self._failure is not None:
            raise BackboneError(f"the model could not be loaded: {self._failure}")
        if self._draining:
            raise Draining("shutting down: ask again, another one will answer")
        if self._engine is None:
            raise Starting("the model is being loaded: ask again in a moment")
        return self._engine

    @property
    def loaded(self) -> Engine | None:
        """The engine once it has started, though it may be draining or dead."""
        return self._engine

    def health(self) -> Health:
        """Whether requests can be answered, and if not, why."""
        try:
            engine = self.engine
        except Starting as error:
            return Health(status="starting", reason=str(error))
        except Draining as error:
            return Health(status="draining", reason=str(error))
        except BackboneError as error:
            return Health(status="failed", reason=str(error))
        if engine.failure is not None:
            return Health(status="failed", reason=engine.failure)
        if not engine.ready:
            return Health(status="starting", reason="warming up")
        return Health(status="ok", backbone=engine.source)


def service_of(request: Request) -> Service:
    """The service that the app was made with."""
    service: Service = request.app.state.service
    return service
