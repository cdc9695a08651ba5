"""In processes of their own: what is told to the C library holds for the whole process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLIBC = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
# Four threads that come and go, each with memory of its own; heaps besides the first show in malloc's own account.
HEAPS = """
import ctypes, sys, threading
from app.heap import settle_heap
assert not {settle} or settle_heap()
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


@pytest.mark.skipif(not GLIBC, reason="of another C library nothing is known")
@pytest.mark.parametrize("settle", [True, False])
def test_all_threads_share_one_heap(settle: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAPS.format(settle=settle)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heaps = done.stdout.count("<heap nr=")
    assert heaps == 1 if settle else heaps > 1
