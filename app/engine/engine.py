"""The engine: audio and the adapter that it is bound to -> a transcript, for many requests at once.

A request holds a permit from admission to answer, and the version of the adapter that was current when it came. Its
audio becomes windows, a few of which are in flight at a time; the windows of all requests queue in the scheduler, run
as rows of mixed batches in the lanes, and come back as paths of tokens, which are joined and decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from adapters.backbone import fingerprint, load_backbone, read_normalised
from adapters.bank import Bank
from adapters.ctc import BestPath, Transcript, transcript
from adapters.encoder import Encoder
from adapters.errors import AudioTooShort, DeadlineExceeded, Draining, QueueFull, TonguesError
from adapters.frontend import SAMPLE_RATE
from adapters.registry import RegisteredAdapter, Registry
from adapters.store import AdapterStore, LoadedAdapter
from adapters.windows import Window, cut
from app.engine.config import EngineConfig
from app.engine.job import Job
from app.engine.lanes import Lanes, Step
from app.engine.publishing import Publishing
from app.engine.residency import Residency, worn_of
from app.engine.runner import Runner
from app.engine.scheduler import Scheduler
from app.engine.whereabouts import Whereabouts

log = logging.getLogger("tongues.engine")


class Engine:
    """Serves the adapters of one backbone. Everything but forwards, file reading and decoding of audio runs on the
    event loop that called :meth:`start`."""

    def __init__(self, config: EngineConfig, *, on_step: Callable[[Step], None] | None = None) -> None:
        self.config = config
        self.ready = False
        self._on_step = on_step or (lambda step: None)
        self._draining = False
        self._permits = 0
        self._ids = itertools.count()
        self._idle = asyncio.Event()
        self._idle.set()
        self._scheduler = Scheduler(config.budget)
        self._stops: list[Callable[[], Awaitable[None]]] = []

    async def start(self) -> None:
        """Load the backbone, scan the stores, run a warm-up forward; then :attr:`ready`.

        Raises :class:`~adapters.errors.BackboneError`, and :class:`~adapters.errors.EngineError` where more adapters
        are pinned than there are seats to spare.
        """
        self.encoder, self.registry = await asyncio.to_thread(self._load)
        bank = Bank(
            self.encoder.hidden_size,
            self.encoder.layer_count,
            self.config.max_seats,
            torch.device(self.config.device),
            self.config.dtype,
        )
        self.residency = Residency(
            bank,
            self.registry.load,
            max_seats=self.config.max_seats,
            max_host_bytes=self.config.max_host_bytes,
            on_seated=lambda: self._lanes.wake(),
            on_failure=lambda worn, error: self._lanes.fail(worn, error),
        )
        runner = Runner(self.encoder, bank, normalised=read_normalised(self.config.backbone))
        self._lanes = Lanes(
            self._scheduler, self.residency, runner.forward, count=self.config.lanes, on_step=self._on_step
        )
        self._lanes.start()
        self._stops.append(self._lanes.stop)
        self.publishing = Publishing(self.registry, self.residency, self._try_out, pinned=self.config.pinned)
        self._stops.append(self.publishing.stop)
        await self.publishing.start(self.config.watch_s)
        await self._warm_up()
        self.ready = True

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """A permit for one request, held until it is answered.

        Raises :class:`~adapters.errors.QueueFull` or :class:`~adapters.errors.Draining`.
        """
        if self._draining:
            raise Draining("the service is shutting down; send the request to another instance, or later")
        if self._permits >= self.config.max_requests:
            raise QueueFull(
                f"{self._permits} requests are being served, which is all that are taken at once; try again"
            )
        self._permits += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._permits -= 1
            if not self._permits:
                self._idle.set()

    @contextlib.contextmanager
    def holding(self, adapter: RegisteredAdapter | None) -> Iterator[None]:
        """Keep this version of an adapter at hand, whatever happens to its files; it is loaded meanwhile."""
        if adapter is None:
            yield
            return
        worn = self.residency.hold(adapter)
        try:
            yield
        finally:
            self.residency.let_go(worn)

    async def transcribe(
        self, adapter: RegisteredAdapter, audio: Iterable[np.ndarray], *, request_id: str
    ) -> Transcript:
        """What ``audio`` (blocks of 16 kHz mono float32) says in ``adapter``'s language.

        ``request_id`` is no other running request's: jobs are taken back by it. Blocks are pulled in a thread as
        windows are needed. Raises what the iterable raises, :class:`~adapters.errors.AdapterError` where the adapter
        cannot be loaded, :class:`~adapters.errors.AudioTooShort`, :class:`~adapters.errors.DeadlineExceeded`.
        """
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                with self.holding(adapter):
                    try:
                        return await self._transcribe(adapter, audio, request_id)
                    finally:
                        self._lanes.cancel(request_id)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"not finished within {self.config.request_timeout_s:g} s; send shorter audio or try again later"
            ) from error

    def where(self, adapter: RegisteredAdapter) -> Whereabouts:
        """Where it is now; the reason may be that of a newer version that is not served."""
        found = self.residency.where(adapter)
        return replace(found, reason=found.reason or self.publishing.refused.get(adapter.name))

    async def drain(self) -> None:
        """Take no more requests, finish those that were admitted, and stop."""
        self._draining = True
        self.ready = False
        await self._idle.wait()
        while self._stops:
            await self._stops.pop()()

    @property
    def requests(self) -> int:
        """Requests that hold a permit."""
        return self._permits

    @property
    def queued(self) -> int:
        """Windows that wait for a batch."""
        return len(self._scheduler)

    # --- a request ---

    async def _transcribe(self, adapter: RegisteredAdapter, audio: Iterable[np.ndarray], request_id: str) -> Transcript:
        counted = _Counted(audio)
        geometry = self.encoder.geometry
        windows = cut(counted, geometry, self.config.window)
        window = await asyncio.to_thread(next, windows, None)
        loaded = await self.residency.loaded(worn_of(adapter))  # its load began when it was held
        paths: list[BestPath] = []
        pending: deque[asyncio.Future[BestPath]] = deque()
        while window is not None:
            if len(pending) == self.config.windows_in_flight:
                paths.append(await pending.popleft())
            pending.append(self._submit(window, loaded, adapter, request_id))
            window = await asyncio.to_thread(next, windows, None)
        for answer in pending:
            paths.append(await answer)
        if not paths:
            raise AudioTooShort(
                f"{counted.samples} samples at {SAMPLE_RATE} Hz; at least {geometry.receptive_field} are needed"
            )
        return await asyncio.to_thread(
            transcript,
            BestPath.join(paths),
            loaded.vocab,
            frame_s=geometry.hop / SAMPLE_RATE,
            duration_s=counted.samples / SAMPLE_RATE,
        )

    def _submit(
        self, window: Window, loaded: LoadedAdapter, adapter: RegisteredAdapter, request_id: str
    ) -> asyncio.Future[BestPath]:
        if window.silent:
            answer: asyncio.Future[BestPath] = asyncio.get_running_loop().create_future()
            answer.set_result(BestPath.blanks(window.keep, loaded.vocab.blank))
            return answer
        frames = self.encoder.geometry.frames(window.samples.size)
        return self._lanes.submit(
            Job(
                id=next(self._ids),
                request_id=request_id,
                worn=worn_of(adapter),
                language=adapter.record.language,
                window=window,
                frames=frames,
                long=window.keep < frames,  # context on either side: there is more of this recording
            )
        )

    # --- start ---

    def _load(self) -> tuple[Encoder, Registry]:
        config = self.config
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        encoder = load_backbone(config.backbone, device=config.device, dtype=config.dtype)
        stores = [AdapterStore(folder) for folder in config.stores]
        return encoder, Registry(stores, fingerprint(config.backbone), encoder.hidden_size, encoder.layer_count)

    async def _warm_up(self) -> None:
        """Two seconds of noise in every lane: kernels chosen, memory touched, before traffic."""
        for adapter in self.registry.snapshot.adapters.values():
            with contextlib.suppress(TonguesError):
                await asyncio.gather(*(self._try_out(adapter) for _ in range(self.config.lanes)))
                return
        log.warning("no adapter to warm up with")

    async def _try_out(self, adapter: RegisteredAdapter) -> None:
        """A forward with this adapter. Raises :class:`~adapters.errors.TonguesError` where that cannot be."""
        noise = np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32) * 0.1
        await self.transcribe(adapter, [noise], request_id=f"trial-{next(self._ids)}")


class _Counted:
    """Blocks as they come, counting samples."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += block.size
            yield block
