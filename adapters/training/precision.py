"""Where half the bits train twice as fast."""

from __future__ import annotations

from pathlib import Path

import torch


def prefers_bfloat16(device: str) -> bool:
    """Whether bfloat16 is faster than float32 for training on ``device``: GPUs that have it, and CPUs with AMX."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
