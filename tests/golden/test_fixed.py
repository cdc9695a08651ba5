"""The form for GPUs, of few shapes and masked always, against each row alone in the form of CPUs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapters.bank import Bank, Seat
from adapters.config import AdapterConfig, BackboneSize, top_layers
from adapters.ctc import best_tokens
from adapters.encoder import Encoder, Frames
from adapters.frontend import PaddedAudio, few_widths, pad
from adapters.methods import METHODS
from tests.builders import encoder_of, perturbed_adapter, reference
from tests.golden.test_bank import CLIPS, CLOSE, CONFIGS, POPULARITY

ROWS = 12


@pytest.fixture(scope="module", params=["wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group"])
def encoder(request) -> Encoder:
    return encoder_of(reference(request.param))


@pytest.fixture(scope="module")
def bank(encoder) -> Bank:
    return Bank(encoder.size, limit=16)


@pytest.fixture(scope="module")
def seats(encoder, bank) -> list[Seat]:
    adapters = [perturbed_adapter(config, encoder, seed) for seed, config in enumerate(CONFIGS)]
    return [bank.seat(adapter.config, adapter.tensors()) for adapter in adapters]


@pytest.fixture(scope="module")
def alone(encoder, bank, seats) -> dict[tuple[int, int], Tensor]:
    """The logits of a clip alone in an adapter, (T, V), as they are asked for."""

    class Alone(dict[tuple[int, int], Tensor]):
        def __missing__(self, key: tuple[int, int]) -> Tensor:
            clip, worn = key
            logits = encoder(pad([CLIPS[clip]]), bank.dress([seats[worn]]))
            self[key] = logits[0, :, : CONFIGS[worn].vocab_size]
            return self[key]

    return Alone()


def trunk(encoder: Encoder, count: int, layers: int) -> Frames:
    """The first ``count`` clips, among rows of zeros that are one frame long."""
    audio = pad(CLIPS[:count], width=few_widths, rows=ROWS)
    ends = torch.tensor([*audio.lengths, *[encoder.geometry.receptive_field] * (ROWS - count)])
    return encoder.trunk(PaddedAudio(audio.samples, (), ends), layers)


@pytest.mark.parametrize("popularity", POPULARITY)
@torch.inference_mode()
def test_every_row_equals_its_solo_run(encoder, bank, seats, alone, popularity):
    wearing = POPULARITY[popularity]
    worn = bank.dress_fixed([seats[i] for i in wearing], ROWS)
    logits = encoder.top(trunk(encoder, len(CLIPS), worn.lowest_layer), worn)
    for row, which in enumerate(wearing):
        expected = alone[row, which]
        frames, size = expected.shape
        torch.testing.assert_close(logits[row, :frames, :size], expected, **CLOSE)
        assert torch.isneginf(logits[row, :, size:]).all(), "columns beyond the row's vocabulary"
    ids, probabilities = best_tokens(logits)
    assert (ids[len(wearing) :] == 0).all(), "rows that wear nothing"
    assert (probabilities[len(wearing) :] == 1).all()
    assert logits.shape[0] == ROWS
    assert not logits.isnan().any()


@torch.inference_mode()
def test_neither_padding_rows_nor_the_width_change_a_row(encoder, bank, seats):
    """Two batches of different shapes, and the clips that they share."""
    worn = bank.dress_fixed([seats[0], seats[4]], ROWS)
    few = encoder.top(trunk(encoder, 2, worn.lowest_layer), worn)
    worn = bank.dress_fixed([seats[0], seats[4], seats[2], seats[5], seats[7]], ROWS)
    more = encoder.top(trunk(encoder, 5, worn.lowest_layer), worn)
    assert more.shape[1] > few.shape[1]
    for row, frames in enumerate(encoder.geometry.frames(clip.size) for clip in CLIPS[:2]):
        torch.testing.assert_close(more[row, :frames, :90], few[row, :frames, :90], **CLOSE)


@torch.inference_mode()
def test_a_clip_heard_in_several_adapters_equals_each_alone(encoder, bank, seats, alone):
    heard = [(0, 0), (0, 3), (1, 5), (2, 4), (2, 2), (2, 6), (3, 1)]
    worn = bank.dress_fixed([seats[which] for _, which in heard], ROWS)
    index = torch.tensor([*(clip for clip, _ in heard), *[0] * (ROWS - len(heard))])
    logits = encoder.top(trunk(encoder, 4, worn.lowest_layer).rows(index), worn)
    for row, key in enumerate(heard):
        frames, size = alone[key].shape
        torch.testing.assert_close(logits[row, :frames, :size], alone[key], **CLOSE)


@pytest.mark.parametrize("name", METHODS)
def test_zeros_for_weights_leave_a_row_as_it_is(name):
    """What slot 0 counts on, of every method."""
    config = next(config for config in CONFIGS if config.method == name)
    x = torch.randn(2, 5, 48)
    for place in METHODS[name].places(config):
        shapes = METHODS[name].shapes(config, place, BackboneSize(48, 4, 48))
        zeros = {key: torch.zeros(2, *shape) for key, shape in shapes.items()}
        torch.testing.assert_close(METHODS[name].many(x, x, zeros), x, rtol=0, atol=0)


@torch.inference_mode()
def test_cheap_adapters_act_on_all_rows_so_that_batches_are_of_one_kind(encoder):
    """Each row still says what it says alone, and a graph does whichever of them its rows wear; dear ones are told
    apart."""
    layers = top_layers(encoder.layer_count, 2)
    small = [
        AdapterConfig("bottleneck", 4, layers, "adapted", 24),
        AdapterConfig("bottleneck", 2, layers, "none", 24),
        AdapterConfig("lora", 2, layers, "none", 24),
    ]
    bank = Bank(encoder.size, limit=4)
    adapters = [perturbed_adapter(config, encoder, seed) for seed, config in enumerate(small)]
    seats = [bank.seat(adapter.config, adapter.tensors()) for adapter in adapters]
    kinds = {bank.dress_fixed([seats[number] for number in wearing], ROWS).kind for wearing in ([0], [1], [2], [2, 0])}
    assert len(kinds) == 1
    for wearing in ([1], [2], [1, 2, 0]):
        worn = bank.dress_fixed([seats[number] for number in wearing], ROWS)
        logits = encoder.top(trunk(encoder, len(wearing), worn.lowest_layer), worn)
        for row, number in enumerate(wearing):
            expected = encoder(pad([CLIPS[row]]), bank.dress([seats[number]]))[0, :, :24]
            torch.testing.assert_close(logits[row, : len(expected), :24], expected, **CLOSE)
    dear = perturbed_adapter(AdapterConfig("bottleneck", encoder.size.hidden, layers, "none", 24), encoder, 3)
    seats.append(bank.seat(dear.config, dear.tensors()))
    assert bank.dress_fixed([seats[1]], ROWS).kind != bank.dress_fixed([seats[3]], ROWS).kind
