"""Row by row is the same front end: against all rows at once."""

from __future__ import annotations

import pytest
import torch

from adapters.frontend import FrontEnd, Lengths, PaddedAudio, pad
from adapters.pieces import front
from tests.builders import KINDS, clip, encoder_of, reference


@pytest.fixture(scope="module", params=KINDS)
def frontend(request: pytest.FixtureRequest) -> FrontEnd:
    return encoder_of(reference(request.param)).frontend


def test_rows_one_by_one_are_the_rows_of_the_batch(frontend: FrontEnd) -> None:
    audio = pad([clip(seconds, seed) for seed, seconds in enumerate((2.0, 0.03, 1.31, 4.7))])
    with torch.inference_mode():
        whole, lengths = frontend(audio)
        pieces, same = front(frontend, audio)
    assert same == lengths
    assert pieces.shape == whole.shape
    for row, length in enumerate(lengths):
        torch.testing.assert_close(pieces[row, :length], whole[row, :length], rtol=1e-5, atol=1e-5)
        assert not pieces[row, length:].any()


def test_no_row_is_computed_beside_another(frontend: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[int, ...]] = []
    forward = frontend.forward

    def watched(audio: PaddedAudio) -> tuple[torch.Tensor, Lengths]:
        rows.append(tuple(audio.samples.shape))
        return forward(audio)

    monkeypatch.setattr(frontend, "forward", watched)
    with torch.inference_mode():
        for seconds in (1.3, 1.31):
            front(frontend, pad([clip(seconds, seed) for seed in range(3)]))
    assert len(rows) == 6
    assert {shape[0] for shape in rows} == {1}
    assert len({shape[1] for shape in rows}) == 1, "widths are few"


def test_gradients_come_through(frontend: FrontEnd) -> None:
    audio = pad([clip(1.0, seed) for seed in range(2)])
    audio.samples.requires_grad_(True)
    front(frontend, audio)[0].sum().backward()
    assert audio.samples.grad is not None
    assert audio.samples.grad.abs().sum() > 0


def test_a_row_without_a_frame_is_told(frontend: FrontEnd) -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match="a row has 100 samples"):
        front(frontend, pad([clip(1.0), clip(1.0)[:100]]))
