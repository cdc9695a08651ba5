"""The positional convolution by its spectrum, for CPUs that serve: the same output for a fifth to a tenth of the time.

Its kernel is wide (128 frames in every published wav2vec 2.0) and its groups are narrow, which matrix units dislike.
Over blocks of frames a convolution is a product of spectra (overlap-save; Oppenheim and Schafer, "Discrete-Time Signal
Processing", section 8.7.3): for each frequency and group one small matrix product over all blocks of all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from adapters.encoder import Encoder


class SpectralConvolution(nn.Module):
    """``convolution`` with its weight held as a spectrum, of twice the weight's bytes.

    Semantics: x (B, C, T) float32 -> (B, C, T), the first T frames of what ``convolution`` makes of it, each row by
    itself, within a few units of float32's last place of the loudest frame in the same block: next to it a faint frame
    is coarser than that. ``convolution`` has stride 1, padding of half its kernel, and as many channels out as in.
    """

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        channels, inside, self._kernel = convolution.weight.shape
        self._groups, self._inside = channels // inside, inside
        self._block = 2 * self._kernel
        """Frames of a block. Larger ones waste less on their overlap, and more on short clips."""
        weight = convolution.weight.detach()
        spectrum = weight.new_empty(self._kernel + 1, self._groups, inside, inside, dtype=torch.complex64)  # W, G, I, O
        for group, some in enumerate(torch.split(weight, inside)):  # in turn: all would be a lot of memory
            spectrum[:, group] = torch.fft.rfft(some, n=self._block).conj().permute(2, 1, 0)  # a correlation's
        self._spectrum: Tensor
        self.register_buffer("_spectrum", spectrum.view(-1, inside, inside), persistent=False)
        self.bias: Tensor
        assert convolution.bias is not None
        self.register_buffer("bias", convolution.bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, width = x.shape
        groups, inside, block = self._groups, self._inside, self._block
        step = block - self._kernel + 1
        count = -(-width // step)
        before = self._kernel // 2
        blocks = F.pad(x, (before, count * step + self._kernel - 1 - width - before)).unfold(2, block, step)
        spectra = torch.fft.rfft(blocks)  # (B, C, N, W)
        rows = spectra.view(batch, groups, inside, count, -1).permute(4, 1, 0, 3, 2).reshape(-1, batch * count, inside)
        product = torch.bmm(rows, self._spectrum)  # (W * G, B * N, O)
        product = product.view(-1, groups, batch, count, inside).permute(2, 1, 4, 3, 0)  # (B, G, O, N, W)
        y: Tensor = torch.fft.irfft(product, n=block)[..., :step].reshape(batch, channels, count * step)
        return y[:, :, :width] + self.bias[:, None]


def convolve_by_spectrum(encoder: Encoder) -> None:
    """Replace the positional convolution of ``encoder``, which then serves on a CPU in float32 and cannot train."""
    embed: Any = encoder.model.encoder.pos_conv_embed
    embed.conv = SpectralConvolution(embed.conv)
