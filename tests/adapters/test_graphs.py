"""The books of the graphs, with a recorder that runs a function again where a GPU would replay it."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from adapters.graphs import Function, Graphs, Replay, Tensors


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
