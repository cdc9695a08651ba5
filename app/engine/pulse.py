"""Whether the device still computes.

After some errors of CUDA none of the process' forwards ever succeeds again, whatever it is given: who watches the
service has to know, and start it anew.
"""

from __future__ import annotations

import torch

MOST_MISSES = 8
"""Forwards of one job that fail one after the other before the device is doubted."""

_ACCELERATOR_ERROR: type[Exception] | None = getattr(torch, "AcceleratorError", None)


def is_of_device(error: Exception) -> bool:
    """Whether the device reports a fault of its own, which is none of its memory."""
    return (
        _ACCELERATOR_ERROR is not None
        and isinstance(error, _ACCELERATOR_ERROR)
        and "out of memory" not in str(error).lower()
    )


class Pulse:
    """Kept by who runs forwards; :attr:`failure` is why the device is given up, None while it is not."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self._misses = 0

    def beat(self) -> None:
        """A forward succeeded: whatever was before, the device computes."""
        self.failure, self._misses = None, 0

    def miss(self, error: Exception) -> bool:
        """One of a single job failed, and not for its adapter. Whether a forward of nothing but noise should tell now
        if that is the device's fault."""
        self._misses += 1
        return is_of_device(error) or self._misses % MOST_MISSES == 0

    def stop(self, error: Exception) -> None:
        """Forwards fail whatever they are given."""
        self.failure = f"the device computes no more, start the service anew: {type(error).__name__}: {error}"
