"""The positional convolution by its spectrum, for devices that serve: on a CPU the same output for a fifth to a tenth
of the time, on a GPU where a trial at start finds it faster.

Its kernel is wide (128 frames in every published wav2vec 2.0) and its groups are narrow, which matrix units dislike.
Over blocks of frames a convolution is a product of spectra (overlap-save; Oppenheim and Schafer, "Discrete-Time Signal
Processing", section 8.7.3): for each frequency and group one small matrix product over all blocks of all rows.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from adapters.encoder import Encoder


log = logging.getLogger("tongues.engine")

_TRIAL_ROWS, _TRIAL_FRAMES, _TRIALS = 8, 400, 5


class SpectralConvolution(nn.Module):
    """``convolution`` with its weight held as a spectrum, in twice the bytes of the weight in float32.

    Semantics: x (B, C, T) -> (B, C, T) of its dtype, the first T frames of what ``convolution`` makes of it, each row
    by itself, computed in float32, within a few units of its last place of the loudest frame in the same block: next to
    it a faint frame is coarser than that. ``convolution`` has stride 1, padding of half its kernel, and as many
    channels out as in.
    """

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        channels, inside, self._kernel = convolution.weight.shape
        self._groups, self._inside = channels // inside, inside
        self._block = 2 * self._kernel
        """Frames of a block. Larger ones waste less on their overlap, and more on short clips."""
        weight = convolution.weight.detach().float()
        spectrum = weight.new_empty(self._kernel + 1, self._groups, inside, inside, dtype=torch.complex64)  # W, G, I, O
        for group, some in enumerate(torch.split(weight, inside)):  # in turn: all would be a lot of memory
            spectrum[:, group] = torch.fft.rfft(some, n=self._block).conj().permute(2, 1, 0)  # a correlation's
        self._spectrum: Tensor
        self.register_buffer("_spectrum", spectrum.view(-1, inside, inside), persistent=False)
        self.bias: Tensor
        assert convolution.bias is not None
        self.register_buffer("bias", convolution.bias.detach().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, width = x.shape
        groups, inside, block = self._groups, self._inside, self._block
        step = block - self._kernel + 1
        count = -(-width // step)
        before = self._kernel // 2
        blocks = F.pad(x.float(), (before, count * step + self._kernel - 1 - width - before)).unfold(2, block, step)
        spectra = torch.fft.rfft(blocks)  # (B, C, N, W)
        rows = (
            spectra.reshape(batch, groups, inside, count, -1).permute(4, 1, 0, 3, 2).reshape(-1, batch * count, inside)
        )
        product = torch.bmm(rows, self._spectrum)  # (W * G, B * N, O)
        product = product.view(-1, groups, batch, count, inside).permute(2, 1, 4, 3, 0)  # (B, G, O, N, W)
        y: Tensor = torch.fft.irfft(product, n=block)[..., :step].reshape(batch, channels, count * step)
        return (y[:, :, :width] + self.bias[:, None]).to(x.dtype)


def convolve_by_spectrum(encoder: Encoder) -> None:
    """Replace the positional convolution of ``encoder``, which then serves where it is and cannot train; on a GPU only
    where that is faster there."""
    embed: Any = encoder.model.encoder.pos_conv_embed
    spectral = SpectralConvolution(embed.conv)
    if embed.conv.weight.is_cuda and not _faster(spectral, embed.conv):
        return
    embed.conv = spectral


def _faster(spectral: SpectralConvolution, plain: nn.Conv1d) -> bool:
    weight = plain.weight
    x = torch.zeros(_TRIAL_ROWS, weight.shape[0], _TRIAL_FRAMES, device=weight.device, dtype=weight.dtype)
    by_spectrum, by_kernel = _seconds(spectral, x), _seconds(plain, x)
    log.info("positional convolution: %.2f ms, by its spectrum %.2f ms", 1e3 * by_kernel, 1e3 * by_spectrum)
    return by_spectrum < by_kernel


@torch.inference_mode()
def _seconds(convolution: nn.Module, x: torch.Tensor) -> float:
    """Of one call, after two that make ready for it."""
    for _ in range(2):
        convolution(x)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(_TRIALS):
        convolution(x)
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / _TRIALS
