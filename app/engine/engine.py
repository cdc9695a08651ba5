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
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from adapters.backbone import load_backbone, read_normalised
from adapters.bank import Bank
from adapters.ctc import Transcript
from adapters.decoding import GREEDY, Decoding
from adapters.encoder import Encoder
from adapters.errors import (
    BankFull,
    DeadlineExceeded,
    LanguageHeadError,
    LanguageRequired,
)
from adapters.frontend import SAMPLE_RATE
from adapters.language_head import LanguageHead, load_language_head
from adapters.model import open_model
from adapters.registry import RegisteredAdapter, Registry
from app.cores import usable_cores
from app.engine.candidates import Candidates
from app.engine.config import EngineConfig
from app.engine.hands import Hands
from app.engine.hearing import Answer, Hearing
from app.engine.job import worn_of
from app.engine.lanes import Lanes, Step
from app.engine.permits import Permits
from app.engine.publishing import Publishing
from app.engine.residency import Residency
from app.engine.runner import Runner, noise
from app.engine.scheduler import Scheduler
from app.engine.searches import Searches
from app.engine.telling import Telling, among_named, any_language
from app.engine.warm_up import WarmUp
from app.engine.whereabouts import Whereabouts

log = logging.getLogger("tongues.engine")


class Engine:
    """Serves the adapters of one backbone; ``source`` says where that came from.

    Everything but forwards, file reading and decoding of audio runs on the event loop that called :meth:`start`.
    """

    runner_class = Runner

    def __init__(self, config: EngineConfig, *, on_step: Callable[[Step], None] | None = None) -> None:
        self.config = config
        self.ready = False
        self._on_step = on_step or (lambda step: None)
        self._permits = Permits(config.max_requests)
        self._searches = Searches(usable_cores())
        self._pulls = ThreadPoolExecutor(config.max_requests, thread_name_prefix="audio")
        self._ids = itertools.count()
        self._given_up = threading.Event()
        self._scheduler = Scheduler(config.budget, config.lanes)
        self.no_head = "there is no language head beside the backbone, so no language can be told"
        self._stops: list[Callable[[], Awaitable[None]]] = []

    async def start(self) -> None:
        """Load the backbone, scan the stores, run a warm-up forward; then :attr:`ready`.

        Raises :class:`~adapters.errors.BackboneError`, and :class:`~adapters.errors.EngineError` where no forward
        succeeds.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self.ready = True

    async def _start(self) -> None:
        self._stops += [self._searches.stop, self._stop_pulling]
        self.encoder, self.registry, self.head = await asyncio.to_thread(self._load)
        bank = Bank(
            self.encoder.size,
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
        self._stops.append(self.residency.stop)
        self._runner = runner = self.runner_class(
            self.encoder, bank, head=self.head, normalised=self._normalised, threads=self.config.threads
        )
        self._lanes = Lanes(
            self._scheduler,
            self.residency,
            runner.forward,
            count=self.config.lanes,
            in_flight=runner.in_flight,
            probe=partial(runner.trial_s, 1),
            on_step=self._on_step,
        )
        self._lanes.start()
        self._stops.append(self._lanes.stop)
        self.publishing = Publishing(
            self.registry, self.residency, self._try_out, pinned=self.config.pinned, sweeps=self.config.sweeps
        )
        self._stops.append(self.publishing.stop)
        await self.publishing.start(self.config.watch_s)
        parts = (self._lanes, runner, self._scheduler, self.residency, self._try_out)
        await WarmUp(self.config, *parts).run([a for a in self.registry.snapshot.adapters.values() if a.here])

    def admit(self) -> AbstractContextManager[None]:
        """A permit for one request, held until it is answered and nothing is done for it any more.

        Raises :class:`~adapters.errors.QueueFull` or :class:`~adapters.errors.Draining`.
        """
        return self._permits.one()

    @contextlib.contextmanager
    def holding(self, *adapters: RegisteredAdapter) -> Iterator[None]:
        """Keep these versions at hand, whatever happens to their files; they are loaded meanwhile."""
        held = [self.residency.hold(adapter) for adapter in adapters]
        try:
            yield
        finally:
            for worn in held:
                self.residency.let_go(worn)

    def check_seats(self, adapters: Sequence[RegisteredAdapter]) -> None:
        """Raises :class:`~adapters.errors.BankFull` where there are more than can ever be seated together."""
        free = self.config.max_seats - len(self.config.pinned)
        if sum(adapter.name not in self.config.pinned for adapter in adapters) > free:
            raise BankFull(
                f"{len(adapters)} adapters side by side, and the device has room for {free} that come and go"
            )

    async def hear(
        self,
        adapters: Sequence[RegisteredAdapter],
        audio: Iterable[np.ndarray],
        *,
        request_id: str,
        decoding: Decoding = GREEDY,
    ) -> Answer:
        """What ``audio`` (blocks of 16 kHz mono float32) says in that of ``adapters`` that is the likeliest; without
        any, in the language that the language head and its candidates tell.

        ``request_id`` is no other running request's: jobs are taken back by it. Raises what the iterable raises,
        :class:`~adapters.errors.AdapterError` where an adapter cannot be loaded, :class:`~adapters.errors.BankFull`
        where there are more than can ever be seated, :class:`~adapters.errors.AudioTooShort`,
        :class:`~adapters.errors.LanguageRequired`, :class:`~adapters.errors.DecodingUnavailable`, and
        :class:`~adapters.errors.DeadlineExceeded`.
        """
        self.check_seats(adapters)
        if not self.residency.fits([worn_of(adapter) for adapter in adapters]):
            raise BankFull("of the adapters side by side a pinned one has a newer version by now: ask again")
        telling = among_named(self.head, adapters) if adapters else self._any_language()
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                given = (self._lanes, self.residency, self.encoder, self._ids, request_id)
                with Hands(*given, emissions=decoding.beam) as hands:
                    hearing = Hearing(
                        Candidates(adapters, telling, hands),
                        hands,
                        self._searches,
                        self.encoder.geometry,
                        self.config.window,
                        decoding,
                        in_flight=self.config.windows_in_flight,
                        pulls=self._pulls,
                    )
                    return await hearing.answer(audio)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"not finished within {self.config.request_timeout_s:g} s; send shorter audio or try again later"
            ) from error

    async def transcribe(
        self, adapter: RegisteredAdapter, audio: Iterable[np.ndarray], *, request_id: str
    ) -> Transcript:
        """What ``audio`` says in one adapter; as :meth:`hear` otherwise."""
        return (await self.hear([adapter], audio, request_id=request_id)).transcript

    def where(self, adapter: RegisteredAdapter) -> Whereabouts:
        """Where it is now; the reason may be that of a newer version that is not served."""
        found = self.residency.where(adapter)
        return replace(found, reason=found.reason or self.publishing.refused.get(adapter.name))

    def give_up(self) -> None:
        """What is being downloaded is not wanted any more. A start that waits for it raises."""
        self._given_up.set()

    async def drain(self) -> None:
        """Take no more requests, finish those that were admitted, and stop."""
        self.ready = False
        await self._permits.close()
        await self._stop()

    async def _stop(self) -> None:
        self.give_up()
        while self._stops:
            await self._stops.pop()()

    @property
    def requests(self) -> int:
        """Requests that hold a permit."""
        return self._permits.taken

    @property
    def failure(self) -> str | None:
        """Why no forward succeeds any more, however often one is tried; None while they do."""
        return self._lanes.pulse.failure

    @property
    def queued(self) -> int:
        """Windows that wait for a batch."""
        return len(self._scheduler)

    def _any_language(self) -> Telling:
        if self.head is None:
            raise LanguageRequired(self.no_head)
        return any_language(self.head, self.registry, most=self.config.max_seats - len(self.config.pinned))

    async def _stop_pulling(self) -> None:
        self._pulls.shutdown(wait=False, cancel_futures=True)

    # --- start ---

    def _load(self) -> tuple[Encoder, Registry, LanguageHead | None]:
        config = self.config
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        model = open_model(
            config.backbone, config.stores, cache=config.cache, cache_bytes=config.cache_bytes, stop=self._given_up
        )
        registry = model.registry
        log.info("backbone: %s, fingerprint %s", model.source, registry.fingerprint)
        self.source, self._normalised = model.source, read_normalised(model.folder)
        encoder = load_backbone(model.folder, device=config.device, dtype=config.dtype, quantise=config.quantise)
        if model.languages is not None:
            self.no_head = "the adapters of MMS change every layer, so there is no trunk to tell a language by: name it"
        head = None
        if config.language_head is not None and config.language_head.exists():
            try:
                head = load_language_head(config.language_head, fingerprint=registry.fingerprint, size=encoder.size)
            except LanguageHeadError as error:
                self.no_head = f"no language can be told: {error}"
                log.error("%s", self.no_head)
        return encoder, registry, head.to(config.device) if head is not None else None

    async def _try_out(self, adapter: RegisteredAdapter) -> None:
        """A forward with this adapter. Raises :class:`~adapters.errors.TonguesError` where that cannot be."""
        await self.transcribe(adapter, [noise(2 * SAMPLE_RATE)], request_id=f"trial-{next(self._ids)}")
