"""(e) The bare backbone with one head and no adapters: the floor, nothing that speaks languages can be cheaper.

Two ways to run it, transformers' own model and the encoder's loop without a bank, each in several layouts of lanes and
rows: whichever gets through a few clips first on this device is the floor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from adapters.backbone import load_backbone
from adapters.heap import keep_freed_memory
from benchmarks.backbones import VOCAB
from benchmarks.clips import usual
from benchmarks.systems.batches import Batches, Forward, Row, fastest, layouts
from benchmarks.systems.plain import frames, load_plain, padded, tokens
from benchmarks.systems.system import SystemSpec


class BareBackbone:
    def __init__(self, spec: SystemSpec) -> None:
        self._spec = spec

    async def start(self) -> None:
        keep_freed_memory()  # whatever makes the floor lower
        self._plain = load_plain(self._spec)
        self._encoder = load_backbone(self._spec.backbone, device=self._spec.device, dtype=self._spec.dtype)
        torch.manual_seed(0)
        head = torch.randn(VOCAB.size, self._encoder.hidden_size) * 0.02
        self._head = head.to(self._spec.device, self._spec.dtype)
        ways: dict[str, Forward] = {"the encoder's loop": self._by_encoder, "transformers' model": self._by_plain}
        each = layouts(self._spec.cores, on_cpu=self._spec.on_cpu)
        clips = [clip[: clip.size // 2] for clip in usual()[1:]]  # there is much to try
        self._way = list(ways)[fastest([(forward, each[-1]) for forward in ways.values()], clips)]
        forward = ways[self._way]
        self._layout = each[fastest([(forward, layout) for layout in each], clips)]
        if forward == self._by_encoder:
            del self._plain
        else:
            del self._encoder
        self._batches = Batches(forward, self._layout)

    async def answer(self, samples: np.ndarray, language: int) -> object:
        return await self._batches.answer(samples, language)

    async def stop(self) -> None:
        self._batches.stop()

    @property
    def facts(self) -> dict[str, str | int | float]:
        return {"chose": f"{self._way}, {self._layout}"}

    @torch.inference_mode()
    def _by_encoder(self, rows: Sequence[Row]) -> list[list[int]]:
        audio, _ = padded([samples for samples, _ in rows], self._spec)
        trunk = self._encoder.trunk(audio.to(self._spec.device), self._encoder.layer_count)
        hidden = self._encoder.hidden(trunk, self._encoder.bare)
        return tokens(F.linear(hidden, self._head), trunk.lengths)

    @torch.inference_mode()
    def _by_plain(self, rows: Sequence[Row]) -> list[list[int]]:
        audio, inputs = padded([samples for samples, _ in rows], self._spec)
        logits = self._plain(**inputs).logits
        return tokens(logits, frames(self._plain, audio))
