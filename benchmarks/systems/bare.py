"""(e) The bare backbone with one head and no adapters, in one language: what all languages together are held against.

Several ways to run it, transformers' own model, the encoder's loop without a bank and, on a GPU, that loop as graphs,
each in several layouts of lanes and rows: whichever gets through the same kind of load first on this device. On a GPU
it has one batch at a time, where the engine has two in flight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.backbone import load_backbone
from adapters.frontend import PaddedAudio, few_rows, indices, normalise_rows, pad
from adapters.graphs import Run, cuda_graphs
from adapters.heap import keep_freed_memory, spare_what_is_loaded
from adapters.recogniser import fixed_widths, shapes_upto
from app.engine.scheduler import GPU_BUDGET
from benchmarks.backbones import VOCAB
from benchmarks.clips import cut, usual
from benchmarks.systems.batches import Batches, Forward, Row, fastest, layouts, tried
from benchmarks.systems.plain import collapsed, frames, load_plain, padded, tokens
from benchmarks.systems.system import SystemSpec


class BareBackbone:
    def __init__(self, spec: SystemSpec) -> None:
        self._spec = spec
        self._run: Run | None = None

    async def start(self) -> None:
        keep_freed_memory()  # whatever makes it faster
        self._plain = load_plain(self._spec)
        self._encoder = load_backbone(self._spec.backbone, device=self._spec.device, dtype=self._spec.dtype)
        torch.manual_seed(0)
        head = torch.randn(VOCAB.size, self._encoder.hidden_size) * 0.02
        self._head = head.to(self._spec.device, self._spec.dtype)
        ways: dict[str, Forward] = {"the encoder's loop": self._by_encoder, "transformers' model": self._by_plain}
        if not self._spec.on_cpu:
            self._run = cuda_graphs(torch.device(self._spec.device))
            ways["the encoder's loop as graphs"] = self._by_graphs
        each = layouts(self._spec.cores, on_cpu=self._spec.on_cpu)
        if self._run is not None:
            self._rehearse(max(layout.rows for layout in each))
        clips = usual(tried(self._spec.cores, on_cpu=self._spec.on_cpu))
        if self._spec.on_cpu:
            clips = [clip[: clip.size // 2] for clip in clips]  # there is much to try
        self._way = list(ways)[
            fastest([(forward, each[-1]) for forward in ways.values()], clips, on_cpu=self._spec.on_cpu)
        ]
        forward = ways[self._way]
        self._layout = each[fastest([(forward, layout) for layout in each], clips, on_cpu=self._spec.on_cpu)]
        if forward == self._by_plain:
            del self._encoder
        else:
            del self._plain
        self._batches = Batches(forward, self._layout)
        spare_what_is_loaded()

    def _rehearse(self, rows: int) -> None:
        """Every shape until its graph is recorded, as the engine does at its start."""
        longest = max(map(len, cut("1-15 s")))
        for count, width in shapes_upto(GPU_BUDGET.max_frames, rows, longest):
            for _ in range(2):
                self._by_graphs([(np.ones(width, dtype=np.float32), 0)] * count)

    async def answer(self, samples: np.ndarray, language: int) -> object:
        return await self._batches.answer(samples, language)

    async def stop(self) -> None:
        self._batches.stop()

    @property
    def facts(self) -> dict[str, str | int | float]:
        return {"chose": f"{self._way}, {self._layout}", "languages": 1}

    @torch.inference_mode()
    def _by_encoder(self, rows: Sequence[Row]) -> list[list[int]]:
        audio, _ = padded([samples for samples, _ in rows], self._spec)
        return self._told(*self._heard(audio.to(self._spec.device)))

    @torch.inference_mode()
    def _by_graphs(self, rows: Sequence[Row]) -> list[list[int]]:
        """In few shapes, with nothing that depends on the batch, as the engine runs it on a GPU."""
        assert self._run is not None
        count = few_rows(len(rows))
        audio = pad([samples for samples, _ in rows], normalised=False, width=fixed_widths, rows=count)
        one_frame = self._encoder.geometry.receptive_field
        ends = indices([*audio.lengths, *[one_frame] * (count - len(rows))], torch.device(self._spec.device))

        def run(samples: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
            return self._heard(PaddedAudio(normalise_rows(samples, ends), (), ends))

        best, lengths = self._run("bare", run, (audio.samples.to(self._spec.device), ends))
        return self._told(best[: len(rows)], lengths[: len(rows)])

    @torch.inference_mode()
    def _by_plain(self, rows: Sequence[Row]) -> list[list[int]]:
        audio, inputs = padded([samples for samples, _ in rows], self._spec)
        logits = self._plain(**inputs).logits
        return tokens(logits, frames(self._plain, audio))

    def _heard(self, audio: PaddedAudio) -> tuple[Tensor, Tensor]:
        """Best tokens (B, T), and the valid frames of each row."""
        trunk = self._encoder.trunk(audio, self._encoder.layer_count)
        best = F.linear(self._encoder.hidden(trunk, self._encoder.bare), self._head).argmax(dim=-1)
        return best, torch.as_tensor(trunk.lengths)

    @staticmethod
    def _told(best: Tensor, lengths: Tensor) -> list[list[int]]:
        return collapsed(best, lengths.cpu())
