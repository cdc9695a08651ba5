"""A thousand languages beside one backbone, two hundred of them in turn through a few seats: memory stays flat."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adapters.bank import Bank
from adapters.config import BackboneSize
from adapters.mms_store import MmsStore
from adapters.registry import Registry
from adapters.repository import Folder
from app.engine.job import worn_of
from app.engine.residency import Residency
from benchmarks.memory import resident_bytes
from tests.app.engine.tiers import bind, settled

TOKENS = {
    token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *map(chr, range(300, 449))])
}
WIDTH, DISTINCT = 16, 4


@dataclass(frozen=True)
class Scale:
    size: BackboneSize
    registered: int
    cycled: int
    seats: int
    rounds: int
    warm: int = 1
    """Rounds before memory counts: what is freed and used again settles within three."""


SMALL = Scale(BackboneSize(64, 4, 128), registered=1_000, cycled=60, seats=16, rounds=3)
FULL = Scale(BackboneSize(1_280, 48, 5_120), registered=1_000, cycled=200, seats=64, rounds=9, warm=3)


def code(number: int) -> str:
    return f"deu-dialect_{number:04d}"


def make(folder: Path, scale: Scale) -> None:
    """A file for each language, as large as MMS's; a few have weights of their own, others are links to them."""
    size = scale.size
    for number in range(DISTINCT):
        torch.manual_seed(number)
        tensors = {"lm_head.weight": torch.randn(len(TOKENS), size.hidden), "lm_head.bias": torch.randn(len(TOKENS))}
        for layer in range(size.layers):
            prefix = f"wav2vec2.encoder.layers.{layer}.adapter_layer"
            tensors |= {
                f"{prefix}.norm.weight": torch.ones(size.hidden),
                f"{prefix}.norm.bias": torch.zeros(size.hidden),
                f"{prefix}.linear_1.weight": torch.randn(WIDTH, size.hidden),
                f"{prefix}.linear_1.bias": torch.zeros(WIDTH),
                f"{prefix}.linear_2.weight": torch.randn(size.hidden, WIDTH),
                f"{prefix}.linear_2.bias": torch.zeros(size.hidden),
            }
        save_file(tensors, folder / f"adapter.{code(number)}.safetensors")
    for number in range(DISTINCT, scale.registered):
        os.link(
            folder / f"adapter.{code(number % DISTINCT)}.safetensors", folder / f"adapter.{code(number)}.safetensors"
        )
    (folder / "vocab.json").write_text(json.dumps({code(number): TOKENS for number in range(scale.registered)}))


async def cycle(registry: Registry, scale: Scale) -> list[float]:
    """Memory in MB after each adapter was seated, but for the rounds that warm it up."""
    bank = Bank(scale.size, limit=scale.seats)
    tiers = Residency(bank, registry.load, max_seats=scale.seats, max_host_bytes=1 << 20)
    memory = []
    for turn in range(scale.rounds):
        for number in range(scale.cycled):
            adapter = registry.resolve(name=code(number))
            loaded = await bind(tiers, adapter)
            worn = worn_of(adapter)
            while not tiers.seatable((worn,), 0.0):
                tiers.serve(0.0)
                await settled(tiers)
            tiers.take((worn,))
            dressed = bank.dress([tiers.seat(worn)])
            head = dressed.heads[0].one("head.bias")[: len(TOKENS)]
            assert torch.equal(head, loaded.tensors["head.bias"]), "it wears what was loaded"
            tiers.release([(worn,)], 0.0)
            tiers.let_go(worn)
            assert tiers.seats <= scale.seats
            if turn >= scale.warm:
                memory.append(resident_bytes() / 1e6)
    return memory


def run(folder: Path, scale: Scale) -> list[float]:
    make(folder, scale)
    store = MmsStore(Folder(folder), WIDTH, scale.size, "f" * 16)
    registry = Registry([store], "f" * 16, scale.size)
    assert len(registry.snapshot.adapters) == scale.registered
    return asyncio.run(cycle(registry, scale))


def test_many_languages_take_turns(tmp_path):
    run(tmp_path, SMALL)


@pytest.mark.soak
def test_a_thousand_languages_of_mms_size(tmp_path):
    memory = run(tmp_path, FULL)
    size = len(memory) // 10
    parts = [round(max(memory[begin : begin + size])) for begin in range(0, size * 10, size)]
    each = os.path.getsize(tmp_path / f"adapter.{code(0)}.safetensors") / 1e6
    print(f"{FULL.registered} registered of {each:.1f} MB each, {FULL.cycled} through {FULL.seats} seats: MB {parts}")
    assert max(memory) <= 1.05 * memory[0], parts
