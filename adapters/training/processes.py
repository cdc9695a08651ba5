"""Several processes on one run, under torchrun or accelerate launch: each takes its own batches."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn


def join_processes(device: str) -> tuple[int, int]:
    """Meet the other processes of the run, if there are any -> rank and number of processes; (0, 1) alone."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients over the processes of the run; nothing to do for one."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def wait_for_processes() -> None:
    """Go on together."""
    if dist.is_initialized():
        dist.barrier()
