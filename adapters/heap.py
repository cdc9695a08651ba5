"""How this process keeps memory: what its C library does with what a forward has freed, and Python with what stays.

Left alone, glibc gives each thread a heap of its own, made of pieces of 64 MiB, which a forward's tensors fit badly:
what is freed in one is of no use to another, and a service grows for as long as batches of new sizes come. Blocks that
are large enough it gives back to the kernel, and the next batch faults in each of their pages anew: up to a fifth of a
forward of eight rows. A service that runs the same forward for days has one heap instead, and keeps its peak.

Python looks through all objects that it has for cycles, again and again while requests make new ones: half a million
belong to the libraries and the model, and to look through them stops every thread for a fifth of a second.
"""

from __future__ import annotations

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST, _LARGEST_OF_OLD = 1 << 30, 1 << 25  # glibc before 2.35 takes no more than 32 MiB


def keep_freed_memory() -> bool:
    """One heap for all threads, for blocks of up to 1 GiB where the library allows, trimmed only past 1 GiB of free
    memory at its end. To be called before there are threads.

    Whether that was possible: only glibc can, others go on as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mapped = mallopt(_MMAP_THRESHOLD, _LARGEST) or mallopt(_MMAP_THRESHOLD, _LARGEST_OF_OLD)
    return all([mapped, mallopt(_ARENA_MAX, 1), mallopt(_TRIM_THRESHOLD, _LARGEST)])


def spare_what_is_loaded() -> None:
    """Python no longer looks for garbage among the objects that there are now, for as long as the process lives. To be
    called once all is loaded that stays."""
    gc.collect()
    gc.freeze()
