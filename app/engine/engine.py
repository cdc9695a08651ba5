"""The engine: audio and the adapter that it is bound to -> a transcript, for many requests at once.

A request holds a permit from admission to answer. Its audio becomes windows, a few of which are in flight at a time;
the windows of all requests queue in the scheduler, run as rows of mixed batches on the device thread, and come back as
paths of tokens, which are joined and decoded off that thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from adapters.backbone import fingerprint, load_backbone, read_normalised
from adapters.bank import Bank
from adapters.ctc import BestPath, Transcript, transcript
from adapters.encoder import Encoder
from adapters.errors import AudioTooShort, DeadlineExceeded, Draining, EngineError, QueueFull
from adapters.frontend import SAMPLE_RATE
from adapters.registry import RegisteredAdapter, Registry
from adapters.store import AdapterStore, LoadedAdapter
from adapters.windows import Window, cut
from app.engine.config import EngineConfig
from app.engine.job import Batch, Job
from app.engine.residency import Residency, worn_of
from app.engine.runner import Runner
from app.engine.scheduler import Scheduler

log = logging.getLogger("tongues.engine")


@dataclass(frozen=True)
class Step:
    """What one forward did, for logs and metrics."""

    batch: Batch
    seconds: float


class Engine:
    """Serves the adapters of one backbone. Everything but the forward, file reading and decoding of audio runs on the
    event loop that called :meth:`start`."""

    def __init__(self, config: EngineConfig, *, on_step: Callable[[Step], None] | None = None) -> None:
        self.config = config
        self.ready = False
        self._on_step = on_step or (lambda step: None)
        self._draining = False
        self._permits = 0
        self._ids = itertools.count()
        self._answers: dict[int, asyncio.Future[BestPath]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._work = asyncio.Event()
        self._scheduler = Scheduler(config.budget)
        self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._loop_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the backbone, scan the stores, run a warm-up forward; then :attr:`ready`.

        Raises :class:`~adapters.errors.BackboneError`.
        """
        loop = asyncio.get_running_loop()
        encoder, self.registry = await loop.run_in_executor(self._device_thread, self._load)
        device = torch.device(self.config.device)
        bank = Bank(encoder.hidden_size, encoder.layer_count, self.config.max_seats, device, self.config.dtype)
        self.encoder = encoder
        self.residency = Residency(
            bank,
            self.registry.load,
            max_seats=self.config.max_seats,
            max_host_bytes=self.config.max_host_bytes,
        )
        normalised = read_normalised(self.config.backbone)
        self._runner = Runner(encoder, bank, normalised=normalised)
        self._loop_task = asyncio.create_task(self._run(), name="engine")
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
                loaded = await self.residency.bind(adapter)
                try:
                    return await self._transcribe(loaded, adapter, audio, request_id)
                finally:
                    for job in self._scheduler.cancel(request_id):
                        self._answers.pop(job.id, None)
                    self.residency.unbind(worn_of(adapter))
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"not finished within {self.config.request_timeout_s:g} s; send shorter audio or try again later"
            ) from error

    async def drain(self) -> None:
        """Take no more requests, finish those that were admitted, and stop."""
        self._draining = True
        self.ready = False
        await self._idle.wait()
        if self._loop_task is not None:
            self._loop_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop_task
        self._device_thread.shutdown()

    @property
    def requests(self) -> int:
        """Requests that hold a permit."""
        return self._permits

    @property
    def queued(self) -> int:
        """Windows that wait for a batch."""
        return len(self._scheduler)

    # --- a request ---

    async def _transcribe(
        self, loaded: LoadedAdapter, adapter: RegisteredAdapter, audio: Iterable[np.ndarray], request_id: str
    ) -> Transcript:
        counted = _Counted(audio)
        geometry = self.encoder.geometry
        windows = cut(counted, geometry, self.config.window)
        paths: list[BestPath] = []
        pending: deque[asyncio.Future[BestPath]] = deque()
        while (window := await asyncio.to_thread(next, windows, None)) is not None:
            if len(pending) == self.config.windows_in_flight:
                paths.append(await pending.popleft())
            pending.append(self._submit(window, loaded, adapter, request_id))
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
        answer: asyncio.Future[BestPath] = asyncio.get_running_loop().create_future()
        if window.silent:
            answer.set_result(BestPath.blanks(window.keep, loaded.vocab.blank))
            return answer
        job = Job(
            id=next(self._ids),
            request_id=request_id,
            worn=worn_of(adapter),
            language=adapter.record.language,
            window=window,
            frames=self.encoder.geometry.frames(window.samples.size),
        )
        self._answers[job.id] = answer
        self._scheduler.add(job, time.monotonic())
        self._work.set()
        return answer

    # --- the loop ---

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            batch = self._scheduler.next_batch(time.monotonic(), self.residency.take)
            if batch is None:
                self._work.clear()
                continue
            try:
                await self._step(loop, batch)
            except Exception:  # of who watches the steps, say: the loop outlives it
                log.exception("after a forward of %d rows", len(batch.jobs))
            finally:
                for worn in {job.worn for job in batch.jobs}:
                    self.residency.release(worn)

    async def _step(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        seats = [self.residency.seat(job.worn) for job in batch.jobs]
        began = time.monotonic()
        for job in batch.jobs:
            job.times_s["started"] = began
        try:
            paths = await loop.run_in_executor(self._device_thread, self._runner.forward, batch, seats)
        except Exception as error:
            log.exception("a forward of %d rows failed", len(batch.jobs))
            await self._fail(loop, batch, error)
            return
        self._finish(batch, paths, began)

    def _finish(self, batch: Batch, paths: list[BestPath], began: float) -> None:
        now = time.monotonic()
        for job, path in zip(batch.jobs, paths, strict=True):
            job.times_s["finished"] = now
            answer = self._answers.pop(job.id, None)
            if answer is not None and not answer.done():
                answer.set_result(path)
        log.info(
            "batch rows=%d padded_frames=%d languages=%s seconds=%.3f requests=%s",
            len(batch.jobs),
            batch.padded_frames,
            ",".join(batch.languages),
            now - began,
            ",".join(job.request_id for job in batch.jobs),
        )
        self._on_step(Step(batch, now - began))

    async def _fail(self, loop: asyncio.AbstractEventLoop, batch: Batch, error: Exception) -> None:
        """One row may be to blame: run each alone, and fail only those that fail alone."""
        if len(batch.jobs) > 1:
            for job in batch.jobs:
                await self._step(loop, Batch((job,)))
            return
        answer = self._answers.pop(batch.jobs[0].id, None)
        if answer is not None and not answer.done():
            answer.set_exception(EngineError(f"the forward failed: {error}"))

    # --- start ---

    def _load(self) -> tuple[Encoder, Registry]:
        config = self.config
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        encoder = load_backbone(config.backbone, device=config.device, dtype=config.dtype)
        stores = [AdapterStore(folder) for folder in config.stores]
        return encoder, Registry(stores, fingerprint(config.backbone), encoder.hidden_size, encoder.layer_count)

    async def _warm_up(self) -> None:
        """Two seconds of noise through the first adapter that loads: kernels chosen, memory touched, before traffic."""
        noise = np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32) * 0.1
        for adapter in self.registry.snapshot.adapters.values():
            with contextlib.suppress(EngineError), contextlib.suppress(Exception):
                await self.transcribe(adapter, [noise], request_id="warm-up")
                return
        log.warning("no adapter to warm up with")


class _Counted:
    """Blocks as they come, counting samples."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += block.size
            yield block
