"""A system in a process of its own: its threads and its peak of memory are its own, and where it dies others go on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.clips import cut
from benchmarks.memory import forget_peak, peak_bytes, resident_bytes
from benchmarks.systems import System, SystemSpec, SystemUnable, make_system
from benchmarks.workload import Cell, Timing, closed_loop, run_cell

_START_S = 900
_CELL_S = 1_800
_WORN = 4


@dataclass(frozen=True)
class Footprint:
    """Bytes of one system. ``host_peak`` and ``device_peak`` since it had started, of the device what the process kept
    for itself, that of its graphs among it; ``resident`` once it had."""

    resident: int
    host_peak: int
    device_peak: int


class Worker:
    """A system. Raises :class:`SystemUnable`, in every method, with the reason in words."""

    def __init__(self, name: str, spec: SystemSpec) -> None:
        """Its process begins and imports what it needs, which may go on beside others, until it is told to start."""
        self.name = name
        spawn = multiprocessing.get_context("spawn")
        self._line, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, name, spec), name=f"bench-{name}", daemon=True)
        self._process.start()
        theirs.close()

    def start(self) -> None:
        """Load the model, choose what there is to choose, answer a first few requests. Alone on the machine."""
        self._send("start")
        self._receive(_START_S)

    def run(self, cell: Cell) -> Timing:
        """One round of ``cell``; other workers wait meanwhile."""
        self._send(cell)
        timing: Timing = self._receive(_CELL_S)
        return timing

    def footprint(self) -> Footprint:
        """What it took until now."""
        self._send("footprint")
        taken: Footprint = self._receive(_CELL_S)
        return taken

    def facts(self) -> dict[str, str | int | float]:
        """What it chose and counted."""
        self._send("facts")
        told: dict[str, str | int | float] = self._receive(_CELL_S)
        return told

    def close(self) -> None:
        """End the process."""
        self._send(None)
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _send(self, asked: object) -> None:
        with contextlib.suppress(OSError):  # where it has ended, the answer that does not come says so
            self._line.send(asked)

    def _receive(self, timeout_s: float) -> Any:
        try:
            if not self._line.poll(timeout_s):
                self._process.kill()
                raise SystemUnable(f"no answer within {timeout_s:.0f} s")
            result = self._line.recv()
        except (EOFError, OSError) as error:
            self._process.join(30)
            code = self._process.exitcode
            reason = "killed, most likely for its memory" if code == -9 else f"ended with status {code}"
            raise SystemUnable(f"its process was {reason}" if code == -9 else f"its process {reason}") from error
        if isinstance(result, SystemUnable):
            raise result
        return result


def _serve(line: Connection, name: str, spec: SystemSpec) -> None:
    warnings.simplefilter("ignore")  # of libraries that are only measured
    asyncio.run(_answer_all(line, name, spec))


async def _answer_all(line: Connection, name: str, spec: SystemSpec) -> None:
    try:
        system = make_system(name, spec)
        if line.recv() is None:
            return
        await system.start()
        await _wear(system, spec, everything=name == "engine")
    except Exception as error:
        line.send(_told(error))
        return
    forget_peak()
    resident = resident_bytes()
    if not spec.on_cpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    line.send("ready")
    while (asked := await asyncio.to_thread(line.recv)) is not None:
        try:
            if isinstance(asked, Cell):
                line.send(await run_cell(asked, system.answer))
            elif asked == "facts":
                line.send(system.facts)
            else:
                device = 0 if spec.on_cpu else torch.cuda.max_memory_reserved()
                line.send(Footprint(resident, peak_bytes(), device))
        except Exception as error:
            line.send(_told(error))
    await system.stop()


async def _wear(system: System, spec: SystemSpec, *, everything: bool) -> None:
    """Clips of every length and several languages, or every one: kernels chosen, memory touched, adapters seated."""
    clips = cut("1-15 s")
    shortest = min(clips, key=len)
    for clip in (*sorted(clips, key=len)[:: len(clips) // 4], clips[0]):
        await system.answer(clip, 0)
    with contextlib.suppress(SystemUnable):  # some have fewer languages than are asked for, and say so when they are
        count = spec.adapters if everything else min(spec.adapters, _WORN)
        await closed_loop(lambda number: system.answer(shortest, number), count, 64)


def _told(error: Exception) -> SystemUnable:
    """What crosses to the other process: an exception of any kind may not."""
    if isinstance(error, SystemUnable):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return SystemUnable(f"out of memory: {str(error).splitlines()[0] if str(error) else 'no more was to be had'}")
    return SystemUnable(f"{type(error).__name__}: {str(error)[:300]}")
