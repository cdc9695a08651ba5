"""What a device needs to train fast: half the bits where they are faster, and kernels that are kept."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from adapters.errors import DataError


def prefers_bfloat16(device: str) -> bool:
    """Whether bfloat16 is faster than float32 for training on ``device``: GPUs and CPUs that multiply in it (AMX or
    AVX-512: an EPYC of the fourth generation trains 1.65 times as fast)."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def check_device(device: str) -> None:
    """Raises :class:`~adapters.errors.DataError` where there is no such device."""
    if device != "cpu" and not torch.cuda.is_available():
        raise DataError(f"there is no GPU here for --device {device}; --device cpu does without")


def tune_cpu() -> None:
    """Set up this process for training on a CPU; to be called before the first forward."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")  # compiled kernels, one for each shape
    torch.set_flush_denormal(True)  # optimiser states decay into denormals, ten times slower
