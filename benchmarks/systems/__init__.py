"""The systems that are compared, each behind one small interface, a file each and a line in ``SYSTEMS``."""

from __future__ import annotations

from importlib import import_module

from benchmarks.systems.system import System, SystemSpec, SystemUnable

SYSTEMS = {
    "engine": ("benchmarks.systems.tongues", "TonguesEngine"),
    "load_adapter": ("benchmarks.systems.swapping", "SwappedAdapters"),
    "full models": ("benchmarks.systems.full_models", "FullModels"),
    "peft": ("benchmarks.systems.lora", "MixedLora"),
    "bare": ("benchmarks.systems.bare", "BareBackbone"),
}
"""Name -> where its class is: each is imported in its own process alone."""


def make_system(name: str, spec: SystemSpec) -> System:
    """The system ``name``, not started. Raises :class:`SystemUnable` where a library that it needs is not there."""
    module, attribute = SYSTEMS[name]
    try:
        made: System = getattr(import_module(module), attribute)(spec)
    except ImportError as error:
        raise SystemUnable(f"{error.name or error} is not installed: pip install -e '.[bench]'") from error
    return made


__all__ = ["SYSTEMS", "System", "SystemSpec", "SystemUnable", "make_system"]
