"""Linears in int8 for CPUs: a scale for each output channel of the weights and for each frame of the activations.

PyTorch's own dynamic quantisation takes one scale for the whole batch, so that a loud row coarsens its neighbours. Here
every frame is divided by its own largest magnitude first and all share the fixed scale 1/127 after that: what a frame
comes to depends on that frame alone. Products are added up in integers, whose sum no order changes.

Weights take 7 bits, not 8: without VNNI a CPU adds two products in 16 bits, and 2 · 255 · 127 does not fit (a full row
of ones comes out as 257 instead of 32,512), while 2 · 255 · 63 does. So all CPUs give the same integers.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.errors import BackboneError
from adapters.linears import replace_linears, sublayers

if TYPE_CHECKING:
    from adapters.encoder import Encoder

_WEIGHT_STEPS = 63
_FRAME_STEPS, _FRAME_ZERO = 127, 128
_TINY = 1e-30  # a frame of zeros divides by it


class Int8Linear(nn.Module):
    """``linear`` with int8 weights and a scale a frame. Its weights are held packed for the CPU's kernel (FBGEMM).

    Semantics: x (..., K) float32 -> (..., N) float32, each vector of K by itself.
    Raises :class:`~adapters.errors.BackboneError` on a CPU for which torch has no such kernel.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias: Tensor
        self.register_buffer("bias", linear.bias.detach().float(), persistent=False)
        self._packed = _pack(*quantised_weight(linear.weight))

    def forward(self, x: Tensor) -> Tensor:
        loudest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(_TINY)  # (..., 1)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / loudest, 1 / _FRAME_STEPS, _FRAME_ZERO, self._packed
        )
        return torch.addcmul(self.bias, product, loudest)


def quantise_linears(encoder: Encoder) -> None:
    """Replace the linears of attention and feed forward of every layer; front end, norms, adapters and heads stay."""
    replace_linears(sublayers(encoder), Int8Linear)


def quantised_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) -> int8 in -63..63 and the scale of each of the N outputs, in float64."""
    wide = weight.detach().double()
    scales = (wide.abs().amax(dim=1) / _WEIGHT_STEPS).clamp_min_(_TINY)
    return (wide / scales[:, None]).round_().to(torch.int8), scales


def _pack(integers: Tensor, scales: Tensor) -> Any:
    zeros = torch.zeros(scales.shape[0], dtype=torch.int64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch will replace its quantised tensors one day
            weight = torch._make_per_channel_quantized_tensor(integers, scales, zeros, 0)
            return torch.ops.quantized.linear_prepack(weight, None)
    except RuntimeError as error:
        raise BackboneError(
            f"torch has no int8 linear for this CPU; leave the backbone unquantised: {error}"
        ) from error
