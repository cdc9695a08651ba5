"""How many cores this process may keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Those that it may run on, or as many as its group has time for, as `docker run --cpus` and Kubernetes' limits
    say: threads beyond that would only be throttled."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text().split()
        return cores if limit == "max" else max(1, min(cores, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError):  # not Linux, or a group of the first version
        return cores
