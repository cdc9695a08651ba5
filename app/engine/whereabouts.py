"""Where one version of an adapter is: plain data, for listings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from adapters.registry import RefusedAdapter, RegisteredAdapter

State = Literal["remote", "stored", "loading", "ready", "failed"]
Where = Literal["device", "host", "disk", "remote"]


@dataclass(frozen=True)
class Whereabouts:
    """Its state, the nearest tier, whether it never leaves the device, and the reason where something failed."""

    state: State
    where: Where
    pinned: bool = False
    reason: str | None = None


def unloaded(adapter: RegisteredAdapter | RefusedAdapter) -> Whereabouts:
    """Where an adapter is that nothing has loaded."""
    return Whereabouts("stored", "disk") if adapter.here else Whereabouts("remote", "remote")
