"""What the engine does for one request: keeps adapters at hand, and queues its windows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import cast

from adapters.encoder import Encoder
from adapters.loaded import LoadedAdapter
from adapters.recogniser import Begun
from adapters.registry import RegisteredAdapter
from adapters.windows import Window
from app.engine.job import Job, Part, worn_of
from app.engine.lanes import Lanes
from app.engine.residency import Residency
from app.engine.runner import Paths


class Hands:
    """For the request ``request_id``, by which its jobs are taken back. ``ids`` numbers the jobs of all requests.
    ``emissions``: its paths come with the probabilities of all tokens.

    Of use within ``with``: what was held is let go at the end.
    """

    def __init__(
        self,
        lanes: Lanes,
        residency: Residency,
        encoder: Encoder,
        ids: Iterator[int],
        request_id: str,
        *,
        emissions: bool = False,
    ) -> None:
        self._emissions = emissions
        self._lanes, self._residency, self._encoder = lanes, residency, encoder
        self._ids, self._request_id = ids, request_id
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Hands:
        return self

    def __exit__(self, *_: object) -> None:
        self._lanes.cancel(self._request_id)
        self._held.close()

    def hold(self, adapter: RegisteredAdapter) -> None:
        """Keep this version at hand until the request ends; its load begins now."""
        worn = self._residency.hold(adapter)
        self._held.callback(self._residency.let_go, worn)

    async def loaded(self, adapter: RegisteredAdapter) -> LoadedAdapter:
        """The host copy of what is held. Raises :class:`~adapters.errors.AdapterError`."""
        return await self._residency.loaded(worn_of(adapter))

    async def begin(self, window: Window) -> Begun:
        """The trunk of ``window``."""
        return cast(Begun, await self._queue(window, (), "trunk"))

    def hear(self, window: Window, adapters: Sequence[RegisteredAdapter], begun: Begun | None) -> asyncio.Future[Paths]:
        """Queue ``window`` in each of ``adapters``: from where its trunk ended, if it has ``begun`` and none of them
        changes anything below."""
        lowest = min(a.record.config.lowest_layer(self._encoder.layer_count) for a in adapters)
        if begun is None or lowest < begun.frames.layer:
            return cast("asyncio.Future[Paths]", self._queue(window, adapters, "whole"))
        return cast("asyncio.Future[Paths]", self._queue(window, adapters, "top", begun))

    def _queue(
        self, window: Window, adapters: Sequence[RegisteredAdapter], part: Part, begun: Begun | None = None
    ) -> asyncio.Future[Paths | Begun]:
        frames = self._encoder.geometry.frames(window.samples.size)
        return self._lanes.submit(
            Job(
                id=next(self._ids),
                request_id=self._request_id,
                worn=tuple(map(worn_of, adapters)),
                languages=tuple(adapter.record.language for adapter in adapters),
                window=window,
                frames=frames,
                long=window.long,
                emissions=self._emissions,
                part=part,
                begun=begun.frames if begun is not None else None,
            )
        )
