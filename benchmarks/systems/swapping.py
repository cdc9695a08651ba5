"""(b) transformers' ``load_adapter``, MMS's way: one model, and for each request, under a lock, the weights of its
language are read and copied over those of the language before.

One lane that takes one request at a time is that lock. A language that is loaded already is not loaded again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from benchmarks.systems.batches import Batches, Layout, Row
from benchmarks.systems.plain import jittered, load_plain, padded, tokens
from benchmarks.systems.system import SystemSpec, SystemUnable

MMS_WIDTH = 16


class SwappedAdapters:
    def __init__(self, spec: SystemSpec) -> None:
        self._spec = spec

    async def start(self) -> None:
        self._model = load_plain(self._spec, adapter_attn_dim=MMS_WIDTH)
        if not self._model.config.do_stable_layer_norm:
            raise SystemUnable("transformers puts adapters into pre-norm encoders alone")
        self._folder = tempfile.TemporaryDirectory()
        weights = self._model._get_adapters()
        for number in range(self._spec.adapters):
            path = Path(self._folder.name) / f"adapter.{number}.safetensors"
            safetensors.torch.save_file(jittered(weights, number), path)
        self._model.config._name_or_path = self._folder.name  # where it looks for them
        layout = Layout(1, self._spec.cores, 1)
        self._batches = Batches(self._forward, layout)

    async def answer(self, samples: np.ndarray, language: int) -> object:
        return await self._batches.answer(samples, language)

    async def stop(self) -> None:
        self._batches.stop()
        self._folder.cleanup()

    @property
    def facts(self) -> dict[str, str | int | float]:
        return {"chose": f"1 x {self._spec.cores} threads, 1 row", "languages": 1}

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Row]) -> list[list[int]]:
        ((samples, language),) = rows
        self._model.load_adapter(str(language), force_load=False, local_files_only=True, use_safetensors=True)
        _, inputs = padded([samples], self._spec)
        logits = self._model(**inputs).logits
        return tokens(logits, [logits.shape[1]])
