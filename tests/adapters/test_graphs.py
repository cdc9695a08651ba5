"""The books of the graphs, with a recorder that runs a function again where a GPU would replay it."""

from __future__ import annotations

import contextlib
import logging

import pytest
import torch
from torch import Tensor

from adapters.graphs import Function, Graphs, Replay, Tensors, cuda_recorder


class Recorder:
    """Replays by running the function on the inputs that it was recorded with, into the outputs that there were."""

    def __init__(self, failing: bool = False) -> None:
        self.failing, self.recorded, self.replayed = failing, 0, 0

    def __call__(self, function: Function, inputs: Tensors) -> tuple[Replay, Tensors]:
        if self.failing:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded += 1
        outputs = tuple(torch.full_like(tensor, -1) for tensor in function(*inputs))  # recording computes nothing

        def replay() -> None:
            self.replayed += 1
            for kept, tensor in zip(outputs, function(*inputs), strict=True):
                kept.copy_(tensor)

        return replay, outputs


def doubled(x: Tensor) -> Tensors:
    return (2 * x,)


def test_first_eagerly_then_recorded_then_replayed_with_what_is_given():
    recorder = Recorder()
    graphs = Graphs(recorder)
    found = [graphs("double", doubled, (torch.full((3,), float(i)),))[0].clone() for i in range(5)]
    assert [tensor.tolist() for tensor in found] == [[2.0 * i] * 3 for i in range(5)]
    assert (recorder.recorded, recorder.replayed, len(graphs)) == (1, 4, 1)


def test_inputs_stay_the_callers():
    graphs = Graphs(Recorder())
    given = [torch.full((3,), float(i)) for i in range(3)]
    for tensor in given:
        graphs("double", doubled, (tensor,))
    assert [tensor[0].item() for tensor in given] == [0, 1, 2]


def test_each_key_shape_and_type_has_its_own():
    recorder = Recorder()
    graphs = Graphs(recorder)
    for _ in range(3):
        assert graphs("double", doubled, (torch.ones(3),))[0].tolist() == [2, 2, 2]
        assert graphs("triple", lambda x: (3 * x,), (torch.ones(3),))[0].tolist() == [3, 3, 3]
        assert graphs("double", doubled, (torch.ones(2),))[0].tolist() == [2, 2]
        assert graphs("double", doubled, (torch.ones(2, dtype=torch.int64),))[0].dtype == torch.int64
    assert recorder.recorded == len(graphs) == 4


def test_there_are_no_more_than_so_many():
    recorder = Recorder()
    graphs = Graphs(recorder, most=2)
    for width in (1, 2, 3, 4):
        for _ in range(3):
            assert graphs("double", doubled, (torch.ones(width),))[0].tolist() == [2] * width
    assert recorder.recorded == len(graphs) == 2


def test_where_recording_fails_it_goes_on_without_and_says_so_once(caplog):
    graphs = Graphs(Recorder(failing=True))
    with caplog.at_level(logging.ERROR, "tongues.engine"):
        for width in (1, 2):
            for _ in range(4):
                assert graphs("double", doubled, (torch.ones(width),))[0].tolist() == [2] * width
    assert len(graphs) == 0
    assert [record.message for record in caplog.records if "could not be recorded" in record.message] == [
        "a graph could not be recorded: this process goes on without, kernel by kernel"
    ]


def call(graphs: Graphs, width: int, times: int = 1) -> None:
    for _ in range(times):
        assert graphs("double", doubled, (torch.ones(width),))[0].tolist() == [2] * width


def test_one_that_comes_often_takes_the_place_of_the_longest_unused():
    recorder = Recorder()
    graphs = Graphs(recorder, most=2)
    for width in (1, 2, 1, 2, 1):  # 2 is used before 1
        call(graphs, width)
    call(graphs, 3, times=20)
    assert recorder.recorded == 3
    assert len(graphs) == 2
    replayed = recorder.replayed
    call(graphs, 1)
    assert recorder.replayed == replayed + 1, "used last"
    call(graphs, 2)
    assert recorder.replayed == replayed + 1, "made room"
    call(graphs, 4, times=5)
    assert recorder.recorded == 3, "not for one that came a few times"


def test_what_goes_in_and_out_stays_within_so_many_bytes():
    recorder = Recorder()
    graphs = Graphs(recorder, most_bytes=100)
    for width in (5, 6):  # in and out, four bytes each
        call(graphs, width, times=2)
    assert (len(graphs), graphs.bytes) == (2, 88)
    call(graphs, 7, times=20)
    assert (len(graphs), graphs.bytes) == (1, 56), "both others made room"
    call(graphs, 1, times=2)
    assert (len(graphs), graphs.bytes) == (2, 64)


class Crowded(Recorder):
    """A device without memory for another graph; as torch says it, or as a recording that could not be ended."""

    def __init__(self) -> None:
        super().__init__()
        self.full, self.asked, self.ended = False, 0, True

    def __call__(self, function: Function, inputs: Tensors) -> tuple[Replay, Tensors]:
        self.asked += 1
        try:
            if self.full:
                raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            if not self.ended:
                raise RuntimeError("capture was invalidated")
        return super().__call__(function, inputs)


@pytest.mark.parametrize("ended", [True, False])
def test_where_memory_runs_out_half_go_and_it_is_tried_again_later(ended, caplog):
    recorder = Crowded()
    graphs = Graphs(recorder)
    for width in (1, 2, 3, 4):
        call(graphs, width, times=2)
    recorder.full, recorder.ended = True, ended
    call(graphs, 5, times=200)
    assert (recorder.asked, len(graphs)) == (5, 2), "once, not again and again"
    assert "no memory for another graph" in caplog.text
    replayed = recorder.replayed
    for width in (3, 4):
        call(graphs, width)
    assert recorder.replayed == replayed + 2, "those that were used last stay"
    recorder.full, recorder.ended = False, True
    call(graphs, 5, times=1_000)
    assert (recorder.asked, len(graphs)) == (6, 3)


def test_graphs_make_room_for_a_batch_that_finds_no_memory():
    recorder = Recorder()
    graphs = Graphs(recorder)
    call(graphs, 1, times=2)

    def hungry(x: Tensor) -> Tensors:
        if len(graphs):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return doubled(x)

    assert graphs("hungry", hungry, (torch.ones(3),))[0].tolist() == [2, 2, 2]
    assert (len(graphs), graphs.bytes) == (0, 0)
    with pytest.raises(torch.OutOfMemoryError):
        graphs("exhausted", exhausted, (torch.ones(3),))


def exhausted(x: Tensor) -> Tensors:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_a_key_speaks_of_can_be_forgotten():
    graphs = Graphs(Recorder())
    for key in (("top", (("head", 16), 1)), ("top", (("head", 32), 2)), "trunk"):
        for _ in range(2):
            graphs(key, doubled, (torch.ones(3),))
    graphs.forget((("head", 16), 1))
    assert (len(graphs), graphs.bytes) == (2, 48)


def test_a_pool_of_memory_is_not_used_again_when_its_graphs_are_gone(monkeypatch):
    """torch refuses that: a recording shares its pool with graphs that are alive, or takes a new one."""
    pools: list[object] = []
    ended: list[bool] = []

    class Recording:
        def capture_begin(self, pool: object, capture_error_mode: str) -> None:
            pools.append(pool)

        def capture_end(self) -> None:
            ended.append(True)

        def replay(self) -> None: ...

    class Stream:
        def wait_stream(self, other: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recording)
    graphs = Graphs(cuda_recorder(torch.device("cuda")))
    for name in ("one", "two"):
        for _ in range(2):
            graphs(name, doubled, (torch.ones(3),))
    assert pools[0] is pools[1]
    graphs.forget("one")
    for name in ("two", "three"):
        graphs.forget(name)
        for _ in range(2):
            graphs(name, doubled, (torch.ones(3),))
    assert pools[2] is not pools[0], "none was left"
    assert pools[3] is pools[2]
    assert len(ended) == 4
    with pytest.raises(ValueError, match="never"):
        cuda_recorder(torch.device("cuda"))(refusing, (torch.ones(3),))
    assert len(ended) == 5, "a recording that fails has ended, too"


def refusing(x: Tensor) -> Tensors:
    raise ValueError("never")
