"""A backbone and the adapters for it, from wherever they lie: what a service opens, and what is listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from adapters.backbone import fingerprint, read_config
from adapters.encoder import size_of
from adapters.mms_store import MmsStore, mms_store
from adapters.registry import Registry, Store
from adapters.repository import Repository, fetch_backbone, open_repository
from adapters.store import AdapterStore


@dataclass(frozen=True)
class Model:
    """``source``: the folder of the backbone, or its ``repository`` at the commit that is served, by name; ``folder``:
    where its files lie. ``languages``: those that an MMS checkpoint keeps beside it, the registry's last store."""

    source: str
    folder: Path
    registry: Registry
    languages: MmsStore | None
    repository: Repository


def open_model(
    backbone: Path | str,
    stores: Iterable[Path | str],
    *,
    cache: Path | None = None,
    cache_bytes: int = 1 << 32,
    stop: Event | None = None,
) -> Model:
    """``backbone``: a folder or ``OWNER/NAME[@REVISION]`` of the hub. ``stores``: folders and addresses of adapters,
    the first to be asked first. ``cache``: a folder for copies of what lies at addresses, of up to ``cache_bytes``.
    ``stop``: set by who does not wait any more for what is being downloaded.

    Raises :class:`~adapters.errors.HubError`, :class:`~adapters.errors.BackboneError` and
    :class:`~adapters.errors.StoreError`.
    """
    repository = open_repository(str(backbone), stop)
    folder = fetch_backbone(repository)
    known_by, size = fingerprint(folder), size_of(read_config(folder))
    languages = mms_store(repository, folder, size, known_by)
    opened: list[Store] = [AdapterStore.at(where, cache=cache, cache_bytes=cache_bytes) for where in stores]
    if languages is not None:
        opened.append(languages)
    return Model(repository.name, folder, Registry(opened, known_by, size), languages, repository)
