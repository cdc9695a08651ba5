"""Lengths, normalisation, padding and the masked group norm, each against the implementation that checkpoints know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from adapters.frontend import (
    Geometry,
    few_rows,
    few_widths,
    group_norm_by_rows,
    group_norm_by_sums,
    masked_group_norm,
    normalise,
    normalise_rows,
    pad,
    valid_mask,
)
from tests.builders import clip

BASE = Geometry((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
ODD = Geometry((7, 4, 2), (4, 3, 1))


@pytest.fixture(scope="module", params=[BASE, ODD], ids=["base", "odd"])
def geometry_and_model(request):
    geometry: Geometry = request.param
    config = Wav2Vec2Config(
        conv_kernel=geometry.kernels,
        conv_stride=geometry.strides,
        conv_dim=(4,) * len(geometry.kernels),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_conv_pos_embedding_groups=4,
        num_conv_pos_embeddings=8,
    )
    return geometry, Wav2Vec2Model(config)


@given(samples=st.integers(0, 200_000))
def test_frames_are_those_that_transformers_computes(geometry_and_model, samples):
    geometry, model = geometry_and_model
    theirs = int(model._get_feat_extract_output_lengths(torch.tensor(samples)))
    assert geometry.frames(samples) == max(0, theirs)


def test_frames_are_those_that_the_convolutions_give(geometry_and_model):
    geometry, model = geometry_and_model
    for samples in (geometry.receptive_field, geometry.receptive_field + 1, geometry.samples(2), 1999, 3200):
        with torch.inference_mode():
            assert model.feature_extractor(torch.zeros(1, samples)).shape[2] == geometry.frames(samples)


@given(samples=st.lists(st.integers(0, 200_000), min_size=1))
def test_lengths_on_the_device_are_those_of_the_host(geometry_and_model, samples):
    geometry, _ = geometry_and_model
    found = torch.stack(geometry.lengths_on_device(torch.tensor(samples)), dim=1)
    assert found.tolist() == [geometry.lengths(one) for one in samples]


@given(frames=st.integers(1, 5_000))
def test_samples_are_the_fewest_for_so_many_frames(geometry_and_model, frames):
    geometry, _ = geometry_and_model
    assert geometry.frames(geometry.samples(frames)) == frames
    assert geometry.frames(geometry.samples(frames) - 1) == frames - 1


def test_the_published_geometry():
    assert (BASE.hop, BASE.receptive_field) == (320, 400)
    assert (BASE.frames(399), BASE.frames(400), BASE.frames(16_000)) == (0, 1, 49)
    assert BASE.samples(0) == 0


@pytest.mark.parametrize("loudness", [1e-4, 0.1, 0.9])
@pytest.mark.parametrize("seconds", [0.03, 1.0, 3.0])
def test_normalise_equals_transformers(seconds, loudness):
    samples = clip(seconds, seed=3, loudness=loudness) + np.float32(0.2)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    theirs = extractor([samples.astype(np.float64)], sampling_rate=16_000, return_tensors="np").input_values[0]
    ours = normalise(samples)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert abs(ours.mean()) < 1e-4


def test_normalising_silence_gives_silence():
    assert not normalise(np.full(1000, 0.25, np.float32)).any()


@pytest.mark.parametrize("behind", [0.0, 1e6, float("nan")])
def test_rows_normalised_where_they_lie_equal_each_alone(behind):
    """Quiet, loud and far from zero mean, with anything behind their ends; rows of zeros too."""
    rows = [clip(0.3, 1), clip(1.0, 2, loudness=0.8), clip(0.03, 3, loudness=1e-3) + np.float32(0.2), clip(18.0, 4)]
    rows += [np.full(400, 0.25, np.float32), np.zeros(400, np.float32)]
    ends = torch.tensor([row.size for row in rows])
    samples = torch.full((len(rows), few_widths(18 * 16_000)), behind)
    for row, alone in enumerate(rows):
        samples[row, : alone.size] = torch.from_numpy(alone)
    before = samples.clone()
    found = normalise_rows(samples, ends)
    torch.testing.assert_close(samples, before, rtol=0, atol=0, equal_nan=True)
    assert found.dtype == torch.float32
    for row, alone in enumerate(rows):
        np.testing.assert_allclose(found[row, : alone.size].numpy(), normalise(alone), atol=1e-5, rtol=1e-5)
        assert not found[row, alone.size :].any()


def test_each_row_is_normalised_alone_and_zero_behind_its_end():
    rows = [clip(0.3, 1), clip(1.0, 2, loudness=0.8)]
    audio = pad(rows)
    assert audio.lengths == (4800, 16_000)
    for row, samples in enumerate(rows):
        np.testing.assert_array_equal(audio.samples[row, : samples.size].numpy(), normalise(samples))
        assert not audio.samples[row, samples.size :].any()


@pytest.mark.parametrize("width", [int, few_widths])
@pytest.mark.parametrize("rows", [2, 4])
def test_rows_may_stay_as_they_are_and_both_numbers_be_rounded_up(width, rows):
    windows = [clip(0.3, 1), clip(0.51, 2)]
    audio = pad(windows, normalised=False, width=width, rows=rows)
    assert audio.samples.shape == (rows, width(8160))
    assert audio.lengths == (4800, 8160)
    for row, window in zip(audio.samples.numpy(), windows, strict=False):
        np.testing.assert_array_equal(row[: window.size], window)
        assert not row[window.size :].any()
    assert not audio.samples[2:].any()


def test_widths_are_few_and_waste_little():
    found = {few_widths(samples) for samples in range(4_000, 320_000, 7)}
    assert len(found) < 80
    assert all(few_widths(width) == width for width in found), "a width of the series is its own"
    assert all(samples <= few_widths(samples) <= 1.061 * samples + 1 for samples in range(4_000, 320_000, 7))
    assert few_widths(400) == 4_000
    assert len({few_widths(samples, 2**0.25) for samples in range(4_000, 256_000, 7)}) == 26


@pytest.mark.parametrize(
    "windows", [[], [np.zeros(0, np.float32)], [clip(0.1), np.zeros(0, np.float32)], [np.zeros((2, 8), np.float32)]]
)
def test_batches_that_make_no_sense_are_refused(windows):
    with pytest.raises(ValueError, match="at least one window"):
        pad(windows)


def test_a_mask_only_where_a_row_is_not_full():
    assert valid_mask((5, 5), 5, "cpu") is None
    mask = valid_mask((2, 3), 3, "cpu")
    assert mask is not None
    assert mask.tolist() == [[True, True, False], [True, True, True]]


def random_norm(channels: int) -> nn.GroupNorm:
    torch.manual_seed(1)
    norm = nn.GroupNorm(channels, channels)
    with torch.no_grad():
        norm.weight.normal_(1.0, 0.3)
        norm.bias.normal_()
    return norm.requires_grad_(False)


@pytest.mark.parametrize("masked", [masked_group_norm, group_norm_by_rows, group_norm_by_sums])
@pytest.mark.parametrize(
    ("dtype", "close"),
    [(torch.float32, 1e-4), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
    ids=["float32", "float16", "bfloat16"],
)
@pytest.mark.parametrize("lengths", [(40, 40, 40), (40, 7, 2), (13, 21, 40)])
def test_masked_group_norm_equals_torchs_on_each_row_alone(masked, dtype, close, lengths):
    """With loud junk behind the ends, far from zero mean: sums in half precision would be off by far more."""
    norm = random_norm(6)
    torch.manual_seed(0)
    x = (torch.randn(3, 6, 40) * 3 + 50).to(dtype)
    for row, length in enumerate(lengths):
        x[row, :, length:] = 3e4
    found = masked(x, norm.to(dtype), lengths)
    assert found.dtype == dtype
    for row, length in enumerate(lengths):
        alone = nn.functional.group_norm(
            x[row : row + 1, :, :length].double(), 6, norm.weight.double(), norm.bias.double(), norm.eps
        )
        torch.testing.assert_close(found[row : row + 1, :, :length].double(), alone, atol=close, rtol=close)


@pytest.mark.parametrize("masked", [group_norm_by_rows, group_norm_by_sums])
def test_what_lies_behind_an_end_is_never_read(masked):
    norm = random_norm(3)
    x = torch.randn(2, 3, 9)
    x[0, :, 4:] = float("nan")
    found = masked(x.nan_to_num(7.0), norm, (4, 9))
    other = masked(x.nan_to_num(-3.0), norm, (4, 9))
    torch.testing.assert_close(found, other, atol=0, rtol=0)
    assert found.isfinite().all()


def test_the_group_norm_of_lengths_on_the_device_is_that_of_the_host():
    norm = random_norm(3)
    x = torch.randn(2, 3, 9)
    torch.testing.assert_close(
        masked_group_norm(x, norm, torch.tensor((4, 9))), group_norm_by_sums(x, norm, (4, 9)), atol=0, rtol=0
    )


class Made(TorchDispatchMode):
    """The dtypes of new tensors of as many values as ``like``, in the order in which they are made."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.size, self.dtypes = like.numel(), list[torch.dtype]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        in_place = function.overloadpacket.__name__.endswith("_") or "out" in (kwargs or {})
        if isinstance(made, Tensor) and made.numel() == self.size and not in_place:
            self.dtypes.append(made.dtype)
        return made


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)], ids=str
)
def test_what_is_spent_is_normed_where_it_lies(dtype, close):
    """The largest tensor of a forward: beside it there is one of float32 and no other. Elsewhere it stays."""
    norm, lengths = random_norm(6).to(dtype), (2_000, 7, 1_300)
    ends = torch.tensor(lengths)
    x = (torch.randn(3, 6, 2_000) * 3 + 50).to(dtype)
    before, expected = x.clone(), group_norm_by_rows(x, norm, lengths)
    mask = valid_mask(ends, 2_000, "cpu")
    assert mask is not None
    kept = masked_group_norm(x, norm, ends).masked_fill(~mask[:, None, :], 0)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    torch.testing.assert_close(kept, expected, rtol=close, atol=close)
    with Made(x) as made:
        found = masked_group_norm(x, norm, ends, spent=True)
    assert found.data_ptr() == x.data_ptr()
    assert made.dtypes == [torch.float32]
    torch.testing.assert_close(found.masked_fill(~mask[:, None, :], 0), expected, rtol=close, atol=close)
    if dtype == torch.float32:  # in training nothing is spent
        gradients = []
        for masked in (group_norm_by_rows, group_norm_by_sums):
            leaf = before.clone().requires_grad_()
            (masked(leaf, norm, lengths).masked_fill(~mask[:, None, :], 0) ** 3).sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_row_counts_are_few_and_never_too_small():
    found = [few_rows(rows) for rows in range(1, 129)]
    assert all(rows <= count < 2 * rows for rows, count in enumerate(found, start=1))
    assert len(set(found)) == 11
    assert few_rows(200) == 200


def test_masks_of_lengths_on_the_device_are_those_of_the_host():
    lengths = (2, 3, 5)
    mask = valid_mask(torch.tensor(lengths), 5, "cpu")
    expected = valid_mask(lengths, 5, "cpu")
    assert mask is not None
    assert expected is not None
    assert torch.equal(mask, expected)
    full = valid_mask(torch.tensor((5, 5)), 5, "cpu")
    assert full is not None, "no shortcut"
    assert full.all()
