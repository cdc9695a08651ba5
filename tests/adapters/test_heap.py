"""In processes of their own: what is told to the C library holds for the whole process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, torch
from adapters.heap import keep_freed_memory
assert not {keep} or keep_freed_memory()
for _ in range(10):
    torch.zeros(12 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(12 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap can be told")
def test_large_blocks_are_not_faulted_in_anew():
    assert faults(keep=True) < faults(keep=False) / 4


# Four threads that come and go, each with memory of its own; heaps besides the first show in malloc's own account.
_HEAPS = """
import ctypes, sys, threading
from adapters.heap import keep_freed_memory
assert not {keep} or keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(4)
def work():
    barrier.wait()
    for size in range(2000, 200_000, 1000):
        libc.malloc(size)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap can be told")
@pytest.mark.parametrize("keep", [True, False])
def test_all_threads_share_one_heap(keep: bool) -> None:
    done = subprocess.run([sys.executable, "-c", _HEAPS.format(keep=keep)], capture_output=True, text=True, check=True)
    heaps = done.stdout.count("<heap nr=")
    assert heaps == 1 if keep else heaps > 1


_WALKED = """
import gc
from adapters.heap import spare_what_is_loaded
class Node: pass
loaded = [Node() for _ in range(100_000)]
spare_what_is_loaded()
gone = Node()
gone.itself = gone
del gone
print(len(gc.get_objects()), gc.collect() > 0)
"""


def test_what_is_loaded_is_not_looked_through_again() -> None:
    done = subprocess.run([sys.executable, "-c", _WALKED], capture_output=True, text=True, check=True)
    walked, collected = done.stdout.split()
    assert int(walked) < 1_000
    assert collected == "True"  # what comes later is
