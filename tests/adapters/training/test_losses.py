"""Losses against torch's own, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from adapters.training.losses import consistency_loss, ctc_loss, span_mask, too_short, unit_losses


def logits(rows: int = 3, frames: int = 12, tokens: int = 6) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(rows, frames, tokens)


FRAMES, LABELS = [12, 7, 9], [[1, 2, 2], [3], [5, 4, 1, 2]]


def alone(row: torch.Tensor, labels: list[int], blank: int = 0) -> float:
    """CTC of one row without padding, (T, V)."""
    target = torch.tensor([labels])
    log = row.log_softmax(dim=1)[:, None]
    loss = F.ctc_loss(
        log, target, torch.tensor([row.shape[0]]), torch.tensor([len(labels)]), blank=blank, reduction="sum"
    )
    return float(loss.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ctc_is_the_sum_over_rows_alone_by_their_labels(dtype):
    x = logits().to(dtype)
    wanted = sum(alone(x[i, : FRAMES[i]].float(), LABELS[i]) for i in range(3)) / 8
    found = ctc_loss(x, FRAMES, LABELS, blank=0)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_what_lies_behind_a_row_counts_nothing():
    x = logits()
    before = ctc_loss(x, FRAMES, LABELS, blank=0)
    x[1, 7:] = 50.0
    assert torch.equal(ctc_loss(x, FRAMES, LABELS, blank=0), before)


def test_a_language_sees_its_own_tokens_alone():
    x = logits()
    allowed = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 1, 1, 0, 1, 1]], dtype=torch.bool)
    labels = [[1, 2, 2], [1], [3, 2, 1]]  # within what is left of each row
    spelled = [[1, 2, 2], [3], [4, 2, 1]]
    wanted = sum(alone(x[i, : FRAMES[i]][:, allowed[i]], labels[i]) for i in range(3)) / 7
    x.requires_grad_()
    loss = ctc_loss(x, FRAMES, spelled, blank=0, allowed=allowed)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, x)
    assert not gradient[~allowed[:, None, :].expand_as(gradient)].any()


def test_a_row_too_short_for_its_labels_counts_nothing_and_breaks_nothing():
    x = logits().requires_grad_()
    loss = ctc_loss(x, [2, 7, 9], LABELS, blank=0)
    wanted = sum(alone(x[i, : FRAMES[i]], LABELS[i]) for i in (1, 2)) / sum(len(LABELS[i]) for i in (1, 2))
    assert too_short([2, 7, 9], LABELS) == 1
    assert too_short([3, 4], [[1, 2, 2], [1, 2, 2]]) == 1, "a frame between two of a kind"
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.isfinite(gradient).all()
    assert not gradient[0].any()


def test_the_blank_may_be_any_token_and_rows_may_say_nothing():
    x = logits()
    wanted = alone(x[0], [0, 2], blank=4) / 2
    assert float(ctc_loss(x[:1], [12], [[0, 2]], blank=4)) == pytest.approx(wanted, rel=1e-5)
    assert torch.isfinite(ctc_loss(x[:1], [12], [[]], blank=0))


def test_unit_losses_are_means_over_masked_and_over_seen_frames():
    x, masked = logits(2, 5, 4), torch.tensor([[1, 0, 1, 0, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)
    units = [np.array([0, 1, 2, 3, 0], np.int16), np.array([3, 2], np.int16)]
    log = x.log_softmax(dim=2)
    hidden, seen = unit_losses(x, units, masked)
    assert float(hidden) == pytest.approx(-float(log[0, 0, 0] + log[0, 2, 2] + log[1, 1, 2]) / 3, rel=1e-5)
    assert float(seen) == pytest.approx(-float(log[0, 1, 1] + log[0, 3, 3] + log[0, 4, 0] + log[1, 0, 3]) / 4, rel=1e-5)


def test_units_beyond_the_frames_are_left_out():
    x, masked = logits(1, 3, 4), torch.zeros(1, 3, dtype=torch.bool)
    longer, exact = np.array([0, 1, 2, 3, 3], np.int16), np.array([0, 1, 2], np.int16)
    assert torch.equal(unit_losses(x, [longer], masked)[1], unit_losses(x, [exact], masked)[1])


@pytest.mark.parametrize("everything", [True, False])
def test_no_masked_or_no_seen_frame_is_a_loss_of_nothing(everything):
    """A NaN would cost the whole step."""
    x = logits(1, 3, 4).requires_grad_()
    losses = unit_losses(x, [np.zeros(3, np.int16)], torch.full((1, 3), everything))
    assert losses[int(everything)] == 0
    (gradient,) = torch.autograd.grad(losses[0] + losses[1], x)
    assert torch.isfinite(gradient).all()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.floats(0, 0.3), st.integers(1, 12), st.integers(0, 99))
def test_masks_are_spans_within_the_frames(frames, probability, span, seed):
    width = max(frames)
    masked = span_mask(frames, width, probability, np.random.default_rng(seed), span=span)
    assert masked.shape == (len(frames), width)
    for row, length in zip(masked.numpy(), frames, strict=True):
        assert not row[length:].any()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row[:length].astype(int), [0]])))
        for begin, end in edges.reshape(-1, 2):
            assert end - begin >= span or end == length


def test_masks_cover_about_what_spans_of_ten_do():
    masked = span_mask([5_000], 5_000, 0.08, np.random.default_rng(0))
    assert masked.float().mean() == pytest.approx(1 - 0.92**10, abs=0.03)


def test_saying_the_same_behind_two_masks_costs_nothing():
    x = logits()
    assert float(consistency_loss(torch.cat([x, x]), FRAMES * 2)) == 0


def test_what_differs_is_drawn_together_and_padding_counts_nothing():
    x = torch.randn(6, 12, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    p, q = x[:3].detach().softmax(2), x[3:].detach().softmax(2)
    each = (p * (p / q).log() + q * (q / p).log()).sum(2)
    wanted = sum(float(each[row, :count].sum()) for row, count in enumerate(FRAMES))
    loss = consistency_loss(x, FRAMES * 2)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, x)
    # of KL(p || q) with p held fast, by the logits of q: q - p
    for row, count in enumerate(FRAMES):
        torch.testing.assert_close(gradient[row, :count], p[row, :count] - q[row, :count])
        torch.testing.assert_close(gradient[3 + row, :count], q[row, :count] - p[row, :count])
        assert not gradient[row, count:].any()


def test_tokens_of_other_languages_are_left_out_of_it():
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    allowed = torch.tensor([[1, 1, 0, 1, 0, 0]] * 2, dtype=torch.bool)
    wanted = consistency_loss(x[:, :, [0, 1, 3]], [4, 4])
    torch.testing.assert_close(consistency_loss(x, [4, 4], allowed=allowed), wanted)
