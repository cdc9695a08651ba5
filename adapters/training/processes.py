"""Several processes on one run, started here or by torchrun: each takes its own batches."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from adapters.errors import TonguesError

Result = TypeVar("Result")
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
PATIENCE = timedelta(days=7)
"""How long processes of a run wait for the first of them, which alone hears dev and test."""


def run_processes(function: Callable[..., object], args: tuple[Any, ...], count: int) -> None:
    """Call ``function(*args)`` in ``count`` processes of this machine that train together; in this one for 1.

    ``function`` and ``args`` must pickle. Each process gets its share of the cores. When one fails, all end.
    Raises :class:`~adapters.errors.TonguesError` with what the first to fail said.
    """
    if count == 1:
        function(*args)
        return
    with socket.create_server(("127.0.0.1", 0)) as meeting:
        port = meeting.getsockname()[1]
    said: SimpleQueue[str] = mp.get_context("spawn").SimpleQueue()
    try:
        start_processes(_process, (os.getpid(), count, port, said, function, args), nprocs=count, start_method="spawn")  # type: ignore[no-untyped-call]
    except ProcessExitedException:
        if said.empty():
            raise
        raise TonguesError(said.get()) from None


def apart(function: Callable[..., Result], *args: Any) -> Result:
    """``function(*args)`` in a process of its own, whose memory nothing else has touched; it ends with this one."""
    spawn = mp.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_watch, initargs=(os.getpid(),)) as process:
        return process.submit(function, *args).result()


def side_by_side(attempt: Callable[..., object], given: Iterable[tuple[Any, ...]], at_once: int) -> Iterator[None]:
    """Call ``attempt(*one)`` for each of ``given`` in a thread, ``at_once`` of them at a time; yields as each ends.
    Raises what one raises; what was not begun by then is not."""
    threads = ThreadPoolExecutor(at_once)
    try:
        for attempted in as_completed([threads.submit(attempt, *one) for one in given]):
            attempted.result()
            yield
    finally:
        threads.shutdown(cancel_futures=True)


def _process(
    rank: int,
    parent: int,
    count: int,
    port: int,
    said: SimpleQueue[str],
    function: Callable[..., object],
    args: tuple[Any, ...],
) -> None:
    _watch(parent)
    _end_at_once_with(parent)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    try:
        function(*args)
    except (TonguesError, OSError) as error:
        said.put(str(error))
        sys.exit(1)


def _watch(parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_at_once_with(parent: int) -> None:
    """Where Linux does it, whatever this process is at: one whose peer ended first may hang in its own end, where no
    thread of Python runs any more. For processes that a thread began which waits for them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)


def _end_with(parent: int) -> None:
    """Whoever kills the run kills all of it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def join_processes(device: str) -> tuple[int, int]:
    """Meet the other processes of the run, if there are any -> rank and number of processes; (0, 1) alone."""
    if "RANK" in os.environ and not dist.is_initialized():
        on_gpu = device.startswith("cuda")
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


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
