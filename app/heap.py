"""How this process' C library keeps memory that torch has freed."""

from __future__ import annotations

import ctypes

# of glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 1 << 30


def settle_heap() -> bool:
    """One heap for all threads, which keeps what it has; whether the C library could be told.

    Left alone, glibc gives each thread a heap of its own made of pieces of 64 MiB, which a forward's tensors fit badly:
    what is freed in one is of no use to another, and a service grows for as long as batches of new sizes come. Mapping
    large tensors one by one keeps memory smallest, and costs more time in page faults than the forward. To be called
    before there are threads.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # no glibc
        return False
    taken = [mallopt(*option) for option in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST))]
    return all(taken)
