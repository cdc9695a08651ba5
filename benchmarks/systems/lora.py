"""(d) PEFT: LoRA on the queries and values and a head for each language, mixed in one batch by ``adapter_names``.

All languages have one vocabulary, as PEFT needs. One lane: PEFT puts the names of a batch into hooks of the model, so
two batches at once would wear each other's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from benchmarks.clips import usual
from benchmarks.systems.batches import Batches, Row, fastest, layouts, tried
from benchmarks.systems.plain import frames, load_plain, padded, tokens
from benchmarks.systems.system import SystemSpec, SystemUnable

RANK = 8
MOST = 64
"""Adding one takes longer the more there are: 64 of them to the shipped backbone seven seconds, 512 many minutes."""


class MixedLora:
    def __init__(self, spec: SystemSpec) -> None:
        self._spec = spec

    async def start(self) -> None:
        warnings.filterwarnings("ignore", category=FutureWarning)
        names = [self._name(number) for number in range(min(MOST, self._spec.adapters))]
        self._model = get_peft_model(load_plain(self._spec), self._config(), adapter_name=names[0])
        for name in names[1:]:
            self._model.add_adapter(name, self._config())
        self._names = set(names)
        self._model.requires_grad_(False).eval().to(self._spec.device, self._spec.dtype)
        own = [p for name, p in self._model.named_parameters() if f".{names[0]}." in name]
        self._bytes = sum(tensor.numel() * tensor.element_size() for tensor in own)
        each = layouts(self._spec.cores, on_cpu=self._spec.on_cpu, lanes=False)
        clips = usual(tried(self._spec.cores, on_cpu=self._spec.on_cpu))
        self._layout = each[fastest([(self._forward, layout) for layout in each], clips, on_cpu=self._spec.on_cpu)]
        self._batches = Batches(self._forward, self._layout)

    async def answer(self, samples: np.ndarray, language: int) -> object:
        if self._name(language) not in self._names:
            raise SystemUnable(f"{MOST} adapters are added at most: each takes longer than the one before")
        return await self._batches.answer(samples, language)

    async def stop(self) -> None:
        self._batches.stop()

    @property
    def facts(self) -> dict[str, str | int | float]:
        return {"chose": str(self._layout), "languages": len(self._names), "bytes a language": self._bytes}

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Row]) -> list[list[int]]:
        audio, inputs = padded([samples for samples, _ in rows], self._spec)
        names = [self._name(language % len(self._names)) for _, language in rows]
        logits = self._model(**inputs, adapter_names=names).logits
        return tokens(logits, frames(self._model.base_model.model, audio))

    def _name(self, language: int) -> str:
        return f"language{language}"

    def _config(self) -> LoraConfig:
        targets = ["q_proj", "v_proj"]
        return LoraConfig(r=RANK, target_modules=targets, modules_to_save=["lm_head"], init_lora_weights=False)
