"""Memory that a forward frees stays with the process, so that the next forward finds it.

glibc gives every large block back to the kernel when it is freed, and the next batch faults in each of its pages anew:
up to a fifth of a forward of eight rows. A service that runs the same forward for days keeps its peak instead.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """Serve blocks of up to 1 GiB from one heap that is trimmed only past 1 GiB of free memory at its end.

    Whether that was possible: only glibc can, others go on as they are. Threads that already allocated keep their heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST))
    return sum(int(mallopt(option, value)) for option, value in wanted) == len(wanted)
