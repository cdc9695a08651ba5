"""Rows that each wear their own adapter: against the same row alone, and against the form that training uses.

The adapters stand far from the identity and from one another, so that a row in its neighbour's would show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapters import rowwise
from adapters.adapter import Adapter
from adapters.bank import Bank, Seat
from adapters.config import AdapterConfig, top_layers
from adapters.encoder import Encoder
from adapters.errors import BankFull
from adapters.frontend import pad
from adapters.language_head import Calibration, LanguageHead
from adapters.methods.lora import TARGETS
from adapters.recogniser import Recogniser
from adapters.windows import Window
from tests.builders import clip, perturbed_adapter, random_letters, reference, served
from tests.plain import recognise

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
LENGTHS_S = (0.3, 1.1, 2.0, 0.7, 3.1, 1.6, 0.5, 2.4)
CLIPS = [clip(seconds, seed=10 + i, loudness=0.8 if i == 3 else 0.1) for i, seconds in enumerate(LENGTHS_S)]

CONFIGS = [
    AdapterConfig("bottleneck", 16, top_layers(4, 2), "adapted", 24),
    AdapterConfig("bottleneck", 16, top_layers(4, 2), "adapted", 24),
    AdapterConfig("bottleneck", 8, top_layers(4, 4), "all", 40),
    AdapterConfig("bottleneck", 32, top_layers(4, 1), "none", 17),
    AdapterConfig("bottleneck", 16, top_layers(4, 2), "all", 90),
    AdapterConfig("head", 0, (), "none", 33),
    AdapterConfig("bottleneck", 8, (0, 2), "adapted", 24),
    AdapterConfig("head", 0, (), "all", 24),
    AdapterConfig("lora", 4, top_layers(4, 3), "none", 24),
    AdapterConfig("lora", 4, top_layers(4, 3), "none", 24),
    AdapterConfig("mms", 16, top_layers(4, 4), "none", 40),
    AdapterConfig("mms", 16, top_layers(4, 4), "none", 31),
    AdapterConfig("lora", 3, (0, 2), "all", 24, {"targets": TARGETS, "bias": True}),
    AdapterConfig("lora", 3, (1, 2), "none", 24, {"targets": ("k_proj", "out_proj", "output_dense")}),
]

POPULARITY = {
    "identical": [4] * 8,
    "identical head only": [5] * 8,
    "same shape": [0, 1, 0, 1, 1, 0, 0, 1],
    "uniform": [3, 1, 7, 4, 0, 6, 2, 5],
    "zipf": [0, 0, 0, 0, 2, 2, 4, 6],
    "distinct": [0, 1, 2, 3, 4, 5, 6, 7],
    "LoRA alone": [8] * 8,
    "LoRA twice": [8, 9, 9, 8, 8, 9, 8, 9],
    "LoRA among bottlenecks": [8, 0, 9, 4, 5, 8, 2, 1],
    "MMS alone": [10] * 8,
    "MMS twice": [10, 11, 11, 10, 10, 11, 10, 11],
    "LoRA of many targets": [12, 13, 12, 12, 13, 12, 13, 12],
    "all methods": [10, 0, 8, 12, 5, 11, 13, 2],
}


@pytest.fixture(scope="module", params=["wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group"])
def encoder(request) -> Encoder:
    return served(reference(request.param))


@pytest.fixture(scope="module")
def adapters(encoder) -> list[Adapter]:
    return [perturbed_adapter(config, encoder, seed) for seed, config in enumerate(CONFIGS)]


@pytest.fixture(scope="module")
def bank(encoder) -> Bank:
    return Bank(encoder.size, limit=16)


@pytest.fixture(scope="module")
def seats(bank, adapters) -> list[Seat]:
    return [bank.seat(adapter.config, adapter.tensors()) for adapter in adapters]


@pytest.mark.parametrize("copied", [0, 1 << 16], ids=["in their place", "gathered"])
@pytest.mark.parametrize("popularity", POPULARITY)
@torch.inference_mode()
def test_every_row_equals_its_solo_run_and_the_training_form(
    encoder, adapters, bank, seats, popularity, copied, monkeypatch
):
    monkeypatch.setattr(rowwise, "_COPIED", copied)
    wearing = POPULARITY[popularity]
    logits = encoder(pad(CLIPS), bank.dress([seats[i] for i in wearing]))
    for row, worn in enumerate(wearing):
        frames, size = encoder.geometry.frames(CLIPS[row].size), CONFIGS[worn].vocab_size
        trained = encoder(pad([CLIPS[row]]), adapters[worn])[0]
        alone = encoder(pad([CLIPS[row]]), bank.dress([seats[worn]]))[0, :, :size]
        torch.testing.assert_close(logits[row, :frames, :size], trained, **CLOSE)
        torch.testing.assert_close(logits[row, :frames, :size], alone, **CLOSE)
        assert torch.isneginf(logits[row, :, size:]).all(), "columns beyond the row's vocabulary"


@torch.inference_mode()
def test_the_adapters_of_these_tests_tell_rows_apart(encoder, bank, seats):
    """The test of the test: in a neighbour's adapter a row's logits move by far more than the tolerance."""
    wearing = POPULARITY["same shape"]
    right = encoder(pad(CLIPS), bank.dress([seats[i] for i in wearing]))
    wrong = encoder(pad(CLIPS), bank.dress([seats[1 - i] for i in wearing]))
    for row, samples in enumerate(CLIPS):
        frames = encoder.geometry.frames(samples.size)
        moved = (right[row, :frames, :24] - wrong[row, :frames, :24]).abs().mean()
        assert moved > 0.1


@torch.inference_mode()
def test_seating_and_growing_leave_what_is_worn_alone(encoder, adapters):
    bank = Bank(encoder.size, limit=32)
    first = bank.seat(adapters[0].config, adapters[0].tensors())
    worn = bank.dress([first])
    before = encoder(pad(CLIPS[:1]), worn)
    others = [bank.seat(CONFIGS[0], perturbed_adapter(CONFIGS[0], encoder, 50 + i).tensors()) for i in range(20)]
    torch.testing.assert_close(encoder(pad(CLIPS[:1]), worn), before)
    torch.testing.assert_close(encoder(pad(CLIPS[:1]), bank.dress([first])), before)
    for seat in others:
        bank.unseat(seat)
    bank.seat(CONFIGS[0], perturbed_adapter(CONFIGS[0], encoder, 99).tensors())
    torch.testing.assert_close(encoder(pad(CLIPS[:1]), bank.dress([first])), before)


def test_a_full_bank_says_so_and_takes_nothing(encoder, adapters):
    """The second adapter speaks another vocabulary: what comes third finds a free head, and no free bottleneck."""
    bank = Bank(encoder.size, limit=2)
    first, other = (bank.seat(adapters[i].config, adapters[i].tensors()) for i in (0, 4))
    for _ in range(3):
        with pytest.raises(BankFull, match="2 slots"):
            bank.seat(adapters[1].config, adapters[1].tensors())
    head_only = AdapterConfig("head", 0, (), "none", 24)
    bank.seat(head_only, perturbed_adapter(head_only, encoder, 5).tensors())
    bank.unseat(other)
    worn = bank.dress([bank.seat(adapters[4].config, adapters[4].tensors()), first])
    logits = encoder(pad(CLIPS[:2]), worn)
    torch.testing.assert_close(logits[:1, :, :90], encoder(pad(CLIPS[:2]), adapters[4])[:1], **CLOSE)


@torch.inference_mode()
def test_a_clip_heard_in_several_adapters_equals_each_alone(encoder, bank, seats):
    """The trunk once for each clip, the top once for each candidate."""
    heard = [(0, 0), (0, 3), (1, 5), (2, 4), (2, 2), (2, 6), (3, 1)]
    worn = bank.dress([seats[which] for _, which in heard])
    frames = encoder.trunk(pad(CLIPS[:4]), worn.lowest_layer)
    logits = encoder.top(frames.rows([clip for clip, _ in heard]), worn)
    for row, (number, which) in enumerate(heard):
        alone = encoder(pad([CLIPS[number]]), bank.dress([seats[which]]))[0]
        size = CONFIGS[which].vocab_size
        torch.testing.assert_close(logits[row, : len(alone), :size], alone[:, :size], **CLOSE)


def test_a_seat_costs_little_more_than_its_parameters(encoder, adapters):
    """Bytes a slot over the parameters' own: the head rounded up to its class is all that is wasted."""
    config = CONFIGS[0]
    bank = Bank(encoder.size, limit=8)
    bank.seat(config, adapters[0].tensors())
    parameters = sum(tensor.numel() for tensor in adapters[0].tensors().values())
    slot = sum(pool.slot_bytes for pool in bank._pools.values())
    assert slot <= 4 * (parameters + 15 * (encoder.hidden_size + 1))


@pytest.mark.parametrize("kind", ["wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group"])
@torch.inference_mode()
def test_an_untrained_adapter_changes_next_to_nothing(kind):
    model = reference(kind)
    encoder = served(model)
    adapter = Adapter(AdapterConfig("bottleneck", 64, top_layers(4, 4), "all", 24), encoder.size)
    adapter.start_from(encoder.model.encoder.layers)
    adapter.load({**adapter.tensors(), "head.weight": model.lm_head.weight, "head.bias": model.lm_head.bias})
    bare = model(torch.from_numpy(pad(CLIPS[1:2]).samples.numpy())).logits
    assert np.abs((encoder(pad(CLIPS[1:2]), adapter) - bare).numpy()).max() < 1e-3


@torch.inference_mode()
def test_a_forward_in_two_parts_equals_the_whole(encoder, bank, seats):
    """The trunk of some clips in one batch, then the tops of some of them in another, in an order of their own."""
    torch.manual_seed(0)
    head = LanguageHead(
        2,
        ("es", "fr", "ru"),
        random_letters(encoder.hidden_size),
        torch.randn(3, 7),
        torch.zeros(3),
        Calibration(1.0, 0.0, (0.0,) * 3),
        "",
    )
    windows = [Window(0, one, 3, encoder.geometry.frames(one.size) - 5) for one in CLIPS[:4]]
    recogniser = Recogniser(encoder, bank)
    begun = recogniser.begin(recogniser.prepare(windows), head).result()
    heard = [(3, 0), (3, 5), (1, 3), (0, 0)]  # adapters in the upper half alone
    which = sorted({number for number, _ in heard}, reverse=True)
    rows = [which.index(number) for number, _ in heard]
    worn = [seats[adapter] for _, adapter in heard]
    found = recogniser.finish([begun[i].frames for i in which], [windows[i] for i in which], rows, worn).result()
    for path, (number, adapter) in zip(found, heard, strict=True):
        (whole,) = recognise(encoder, [windows[number]], bank.dress([seats[adapter]]))
        assert path.ids.tolist() == whole.ids.tolist()
        np.testing.assert_allclose(path.probabilities, whole.probabilities, atol=1e-4, rtol=1e-4)
