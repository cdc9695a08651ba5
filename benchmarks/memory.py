"""What memory a process takes, as Linux tells it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Of this process, now."""
    return status_bytes("VmRSS")


def peak_bytes() -> int:
    """The most of this process since :func:`forget_peak`, or since it began. Not ``ru_maxrss``, which a process
    inherits from the one that started it."""
    return status_bytes("VmHWM")


def forget_peak() -> None:
    """Count the peak from now on, where the system lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_bytes() -> int:
    """Of the machine: what may be taken without swapping, or the share that this process' group is allowed."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    found = int(fields["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found


def machine_bytes() -> int:
    """All of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def status_bytes(field: str) -> int:
    """A figure of /proc/self/status: ``RssAnon`` is what is private to the process, pages of files apart."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")
