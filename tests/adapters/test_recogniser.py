"""Batches in three parts, in few shapes, recorded and replayed, against one call of the simplest form."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adapters.bank import Bank, Seat
from adapters.config import AdapterConfig, top_layers
from adapters.ctc import BestPath
from adapters.encoder import Encoder
from adapters.graphs import Graphs, Tensors, eagerly
from adapters.language_head import Calibration, LanguageHead
from adapters.pool import Pool
from adapters.recogniser import Recogniser, widths_upto
from adapters.windows import Window
from tests.adapters.test_graphs import Recorder
from tests.builders import clip, encoder_of, perturbed_adapter, random_letters, reference
from tests.plain import begin, recognise

CONFIGS = [
    AdapterConfig("bottleneck", 16, top_layers(4, 2), "adapted", 24),
    AdapterConfig("bottleneck", 8, top_layers(4, 3), "all", 40),
    AdapterConfig("head", 0, (), "none", 33),
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_of(reference("wav2vec2-pre-norm-group"))


def seated(encoder: Encoder, device: str = "cpu") -> tuple[Bank, list[Seat]]:
    bank = Bank(encoder.size, limit=4, device=torch.device(device))
    adapters = [perturbed_adapter(config, encoder, seed) for seed, config in enumerate(CONFIGS)]
    return bank, [bank.seat(adapter.config, adapter.tensors()) for adapter in adapters]


def windows(encoder: Encoder, *seconds: float) -> list[Window]:
    """Some with context, which is not theirs."""
    found = []
    for number, length in enumerate(seconds):
        samples = clip(length, seed=number)
        frames = encoder.geometry.frames(samples.size)
        found.append(Window(number, samples, number, frames - 2 * number))
    return found


BATCHES = [
    ((0.5, 1.1, 0.8), (0, 1, 2), (0, 1, 2)),
    ((0.6, 1.1, 0.4), (0, 1, 2), (2, 0, 1)),
    ((1.1, 0.7), (0, 0, 1, 0), (0, 2, 1, 1)),  # heard in several
    ((1.09, 0.5), (0, 0, 1, 0), (1, 2, 0, 0)),
    ((0.3,), (0,), (1,)),
]


@pytest.mark.parametrize("fixed", [False, True])
def test_three_parts_say_what_one_call_says(encoder, fixed):
    bank, seats = seated(encoder)
    recorder = Recorder()
    recogniser = Recogniser(encoder, bank, fixed=fixed, run=Graphs(recorder) if fixed else eagerly)
    for _ in range(2 if fixed else 1):
        for seconds, rows, wearing in BATCHES:
            given, worn = windows(encoder, *seconds), [seats[which] for which in wearing]
            wanted = [row for row in range(len(rows)) if row % 2]
            launched = recogniser.whole(recogniser.prepare(given), given, rows, worn, wanted)
            expected = recognise(encoder, given, bank.dress(worn), rows=rows)
            found = launched.result()
            assert len(found) == len(expected) == len(rows)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4, rtol=1e-4)
                np.testing.assert_array_equal(ours.ids, theirs.ids)
            assert [row for row, path in enumerate(found) if path.emissions is not None] == wanted
            for path in found[1::2]:
                assert path.emissions is not None
                np.testing.assert_array_equal(path.emissions.argmax(axis=1), path.ids)
                np.testing.assert_allclose(np.exp(path.emissions).max(axis=1), path.probabilities, atol=1e-5)
                np.testing.assert_allclose(np.exp(path.emissions).sum(axis=1), 1, atol=1e-5)
            assert 0 < launched.seconds < 600
    assert recorder.replayed > recorder.recorded > 2 or not fixed


@pytest.mark.parametrize("fixed", [False, True])
def test_probabilities_are_of_a_rows_own_tokens_whatever_is_worn_beside_it(encoder, fixed):
    """Windows of one recording meet other heads, and what was heard of them is joined."""
    bank, seats = seated(encoder)
    recogniser = Recogniser(encoder, bank, fixed=fixed)
    given = windows(encoder, 0.6, 1.1)
    alone = recogniser.whole(recogniser.prepare(given[:1]), given[:1], (0,), seats[:1], (0,)).result()[0]
    for neighbour in seats:
        worn = [seats[0], neighbour]
        beside = recogniser.whole(recogniser.prepare(given), given, (0, 1), worn, (0,)).result()[0]
        assert alone.emissions is not None
        assert beside.emissions is not None
        np.testing.assert_allclose(beside.emissions, alone.emissions, atol=1e-4)
        BestPath.join([alone, beside])
        assert alone.emissions.shape[1] == seats[0].config.vocab_size


@pytest.mark.parametrize("fixed", [False, True])
def test_a_trunk_and_the_top_after_it_say_what_the_whole_says(encoder, fixed):
    """And the language head what it says of each window alone; tops of batches other than their trunks'."""
    bank, seats = seated(encoder)
    torch.manual_seed(0)
    letters, calibration = random_letters(encoder.hidden_size), Calibration(1.0, 1.0, (0.0,) * 3)
    head = LanguageHead(1, ("es", "fr", "ru"), letters, torch.randn(3, 7), torch.zeros(3), calibration, "")
    recogniser = Recogniser(encoder, bank, fixed=fixed)
    clips = windows(encoder, 0.5, 1.1, 0.8)
    begun = recogniser.begin(recogniser.prepare(clips), head).result()
    for window, one in zip(clips, begun, strict=True):
        (alone,) = begin(encoder, [window], head)
        np.testing.assert_allclose(one.log_probabilities, alone.log_probabilities, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.frames.hidden, alone.frames.hidden, atol=1e-4, rtol=1e-4)
    some, rows, worn = [clips[2], clips[0]], (0, 0, 1), [seats[0], seats[2], seats[0]]
    found = recogniser.finish([begun[2].frames, begun[0].frames], some, rows, worn).result()
    for ours, theirs in zip(found, recognise(encoder, some, bank.dress(worn), rows=rows), strict=True):
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4, rtol=1e-4)
        np.testing.assert_array_equal(ours.ids, theirs.ids)


def test_where_shapes_are_fixed_samples_are_normalised_on_the_device(encoder):
    """A lane's thread prepares the next batch while half of one runs, and normalising takes longer than that. Where the
    checkpoint wants none, nor is it done."""
    bank, seats = seated(encoder)
    given = windows(encoder, 0.5, 1.1, 0.8)
    for normalised in (False, True):
        recogniser = Recogniser(encoder, bank, normalised=normalised, fixed=True)
        audio = recogniser.prepare(given)
        for row, window in enumerate(given):
            np.testing.assert_array_equal(audio.samples[row, : window.samples.size].numpy(), window.samples)
            assert not audio.samples[row, window.samples.size :].any()
        expected = recognise(encoder, given, bank.dress(seats), normalised=normalised)
        for ours, theirs in zip(recogniser.whole(audio, given, (0, 1, 2), seats).result(), expected, strict=True):
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4, rtol=1e-4)


def test_heads_of_few_classes_make_one_kind_of_batch(encoder):
    """A graph serves them all, and a row that wears no head of a class notices nothing of it."""
    bank = Bank(encoder.size, limit=4)
    assert encoder.size.hidden >= 48
    configs = [AdapterConfig("head", 0, (), "none", size) for size in (12, 30)]
    adapters = [perturbed_adapter(config, encoder, seed) for seed, config in enumerate(configs)]
    seats = [bank.seat(adapter.config, adapter.tensors()) for adapter in adapters]
    recorder = Recorder()
    recogniser = Recogniser(encoder, bank, fixed=True, run=Graphs(recorder))
    for wearing in ((0, 0), (1, 1), (0, 1), (1, 0), (0, 0)):
        given, worn = windows(encoder, 0.5, 1.1), [seats[which] for which in wearing]
        found = recogniser.whole(recogniser.prepare(given), given, (0, 1), worn).result()
        for ours, theirs in zip(found, recognise(encoder, given, bank.dress(worn)), strict=True):
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4, rtol=1e-4)
            np.testing.assert_array_equal(ours.ids, theirs.ids)
    assert recorder.recorded == 2, "a trunk and a top"
    wide = perturbed_adapter(AdapterConfig("head", 0, (), "none", encoder.size.hidden), encoder, 3)
    bank.seat(wide.config, wide.tensors())
    kinds = {bank.dress_fixed([seat], 1).kind for seat in seats}
    assert len(kinds) == 2, "rows do not pay for a large one that none of them wears"


def test_a_pool_that_was_dropped_and_made_again_has_graphs_of_its_own(encoder, monkeypatch):
    """Those of the old one would read memory that is somebody else's."""
    crowded = Crowded(most=2)
    monkeypatch.setattr("adapters.bank.Pool", crowded)
    bank, graphs = Bank(encoder.size, limit=2), Graphs(Recorder())
    recogniser = Recogniser(encoder, bank, fixed=True, run=graphs)
    (given,) = windows(encoder, 1.0)
    for seed, config in enumerate([CONFIGS[2], CONFIGS[2], AdapterConfig("lora", 2, (3,), "none", 90), CONFIGS[2]]):
        adapter = perturbed_adapter(config, encoder, seed)
        seat = bank.seat(config, adapter.tensors())
        for _ in range(3):
            (ours,) = recogniser.whole(recogniser.prepare([given]), [given], [0], [seat]).result()
            (theirs,) = recognise(encoder, [given], bank.dress([seat]))
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4, rtol=1e-4)
        bank.unseat(seat)
    assert crowded.refused == 2
    assert sum("'top'" in repr(key) for key in graphs._graphs) == 1, "those of the others are forgotten"


class Crowded:
    """Makes pools, of which the device has memory for ``most``."""

    def __init__(self, most: int) -> None:
        self._most, self.alive, self.refused = most, weakref.WeakSet[Pool](), 0

    def __call__(self, *given: Any) -> Pool:
        if len(self.alive) >= self._most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        made = Pool(*given)
        self.alive.add(made)
        return made


def test_paths_do_not_keep_their_batch_in_memory(encoder):
    bank, seats = seated(encoder)
    (given,) = windows(encoder, 1.0)
    recogniser = Recogniser(encoder, bank)
    (path,) = recogniser.whole(recogniser.prepare([given]), [given], [0], seats[:1]).result()
    assert path.ids.base is None
    assert path.probabilities.base is None


class NothingFromTheHost(TorchDispatchMode):
    """Raises where an operation reads or makes a tensor off the device, or a value of the device on the host."""

    asks = frozenset({"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"})

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        assert function.overloadpacket.__name__ not in self.asks, f"the host asks the device: {function}"
        for tensor in tree_leaves((args, kwargs, made)):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", f"not on the device: {function}"
        return made


def watched(key: object, function: Any, given: Tensors) -> Tensors:
    """Runs what a GPU would record."""
    with NothingFromTheHost():
        found: Tensors = function(*given)
    return found


@pytest.mark.parametrize("kind", ["wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group"])
def test_what_is_recorded_never_touches_the_host(kind, monkeypatch):
    """On a device that has no values: whoever asks for one, fails."""
    encoder = encoder_of(reference(kind))
    on_device = encoder_of(reference(kind)).to("meta")
    bank = Bank(encoder.size, limit=4, device=torch.device("meta"))
    adapters = [perturbed_adapter(config, encoder, seed) for seed, config in enumerate(CONFIGS)]
    seats = [bank.seat(adapter.config, adapter.tensors()) for adapter in adapters]
    recogniser = Recogniser(on_device, bank, fixed=True, run=watched)
    given: list[Any] = []
    monkeypatch.setattr("adapters.recogniser._paths", lambda *found: given.extend(found))
    clips = windows(encoder, 0.5, 1.1)
    recogniser.whole(recogniser.prepare(clips), clips, (0, 1, 0), seats).result()
    assert given[0].shape == given[1].shape == (4, given[0].shape[1])
    assert given[0].device.type == "meta"


def test_the_widths_of_a_gpu_are_those_that_batches_have(encoder):
    recogniser = Recogniser(encoder, seated(encoder)[0], fixed=True)
    widths = widths_upto(40_000)
    assert widths[-2] < 40_000 <= widths[-1]
    for samples in (400, 4_000, 4_001, 20_000, 39_999, 40_000):
        audio = recogniser.prepare([Window(0, np.ones(samples, np.float32), 0, 1)])
        assert audio.samples.shape == (1, next(width for width in widths if width >= samples))


def test_the_form_of_cpus_does(encoder):
    """The test of the test: lengths that the host knows become masks that it copies."""
    on_device = encoder_of(reference("wav2vec2-pre-norm-group")).to("meta")
    audio = Recogniser(encoder, seated(encoder)[0]).prepare(windows(encoder, 0.5, 1.1)).to("meta")
    with pytest.raises(AssertionError, match="not on the device"), NothingFromTheHost():
        on_device.trunk(audio, 2)
