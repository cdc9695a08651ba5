"""Where a checkpoint's files lie: in a folder, or in a repository of a model hub, where they come when they are wanted.

The hub is spoken to by huggingface_hub alone: ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and
proxies mean here what they mean everywhere. A repository stays at the commit that it was opened at.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    resolve_revision,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, RevisionResolutionError
from huggingface_hub.hf_api import RepoFile

from adapters.download import TRIES, Progress, download
from adapters.errors import BackboneError, HubError
from adapters.partial import Partial
from adapters.ranged import fetch_ranged
from adapters.reason import reason
from adapters.refusal import said
from adapters.weights import INDEX, PICKLES, WHOLE, pickle_refused

log = logging.getLogger("tongues.hub")

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_CONFIGURATION = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.json",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WEIGHTS = (".safetensors", ".bin")  # which are gone on with
_LARGE_BYTES = 1 << 26  # what is smaller is asked for again by who wants it


@dataclass(frozen=True)
class RepositoryFile:
    """``stamp`` is another one for other content. ``sha256``: of the content, where it is known beforehand."""

    size_bytes: int
    stamp: str
    sha256: str | None = None


class Repository(Protocol):
    """The files of one checkpoint."""

    @property
    def name(self) -> str:
        """As people know it."""

    @property
    def files(self) -> Mapping[str, RepositoryFile]:
        """All there are, by name."""

    def here(self, file: str) -> bool:
        """Whether it can be had without a network."""

    def fetch(self, file: str) -> Path:
        """Where it lies, once it does. Raises :class:`~adapters.errors.HubError` where it cannot be had."""

    def fetch_all(self, files: Collection[str]) -> Path:
        """The folder that these lie in, once they do. Raises :class:`~adapters.errors.HubError`."""

    def forget(self, file: str) -> None:
        """It is not what it should be: the next :meth:`fetch` gets it anew, where it came from elsewhere."""


@dataclass(frozen=True)
class Folder:
    """A checkpoint on this machine."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def files(self) -> Mapping[str, RepositoryFile]:
        found = {}
        for path in sorted(self.path.iterdir()):
            if path.is_file():
                told = path.stat()
                found[path.name] = RepositoryFile(told.st_size, stamp_of(told))
        return found

    def here(self, file: str) -> bool:
        return (self.path / file).is_file()

    def fetch(self, file: str) -> Path:
        if not self.here(file):
            raise HubError(f"{self.path}: no {file}")
        return self.path / file

    def fetch_all(self, files: Collection[str]) -> Path:
        return self.path

    def forget(self, file: str) -> None:
        """Nothing: a folder's files are its owner's."""


@dataclass(frozen=True)
class HubRepository:
    """A repository of a hub at one commit. ``offline``: the hub is not asked, and the files are those that were fetched
    before. ``stop``: set by who does not want any more what is being downloaded."""

    id: str
    commit: str
    offline: bool = False
    stop: Event = field(default_factory=Event, compare=False, repr=False)

    @classmethod
    def open(cls, source: str, stop: Event | None = None) -> HubRepository:
        """``source``: ``OWNER/NAME`` or ``OWNER/NAME@REVISION``. Where the hub cannot be reached, the commit that the
        cache knows. Raises :class:`~adapters.errors.HubError` saying what would help."""
        repo, _, revision = source.partition("@")
        try:
            commit = resolve_revision(repo, revision=revision or None).resolved
        except RevisionResolutionError as error:
            raise HubError(
                f"{source}: the hub at {constants.ENDPOINT} cannot be reached, and nothing of it was fetched before: "
                f"{reason(error.__cause__ or error)}"
            ) from error
        except Exception as error:
            raise HubError(f"{source}: {said(error)}") from error
        found = cls(repo, commit, offline=constants.is_offline_mode(), stop=stop or Event())
        _ = found.files
        log.info("%s: to stay at it: %s", source, found.name)
        return found

    @property
    def name(self) -> str:
        """What pins it: :meth:`open` takes it."""
        return f"{self.id}@{self.commit}"

    @cached_property
    def files(self) -> Mapping[str, RepositoryFile]:
        """Where the hub does not answer, those that it listed before. Raises :class:`~adapters.errors.HubError` where
        there is no list of them."""
        if self.offline:
            if (listed := self._listed_before()) is None:
                raise HubError(f"{self.name}: nothing of it was fetched before, and the hub is not asked")
            return {file: told for file, told in listed.items() if self.here(file)}
        try:
            return _remote_files(self.id, self.commit)
        except Exception as error:
            failure = HubError(f"{self.name}: {said(error)}")
            if (listed := self._listed_before()) is None:
                raise failure from error
            log.warning("%s; what was fetched before is served, and other files are asked for when needed", failure)
            return listed

    def here(self, file: str) -> bool:
        return isinstance(try_to_load_from_cache(self.id, file, revision=self.commit), str)

    def fetch(self, file: str) -> Path:
        if not self.offline and not self.here(file):
            log.info("fetching %s of %s", file, self.name)
        large = file in self.files and self.files[file].size_bytes >= _LARGE_BYTES
        return self._download(lambda progress: self._one(file, progress), [file], tries=TRIES if large else 1)

    def forget(self, file: str) -> None:
        if not self.offline and self.here(file):
            self.fetch(file).resolve().unlink(missing_ok=True)

    def fetch_all(self, files: Collection[str]) -> Path:
        if not self.offline and (missing := self._missing_bytes(files)):
            log.info("fetching %s from %s: %.1f MB", self.name, constants.ENDPOINT, missing / 1e6)
        return self._download(lambda progress: self._all(files, progress), files, tries=TRIES)

    def _one(self, file: str, progress: Progress) -> Path:
        blob = None
        if self._resumable(file) and not self.here(file):
            blob = fetch_ranged(self.id, self.commit, file, self.files[file].size_bytes, progress)
        found = self._by_client(hf_hub_download, progress, filename=file)
        if blob is not None and not found.is_symlink():  # the client has made a copy of it, for want of links
            blob.unlink(missing_ok=True)
        return found

    def _all(self, files: Collection[str], progress: Progress) -> Path:
        """What is small comes first, so that what is wrong with it is known before gigabytes have come."""
        weights = sorted(file for file in files if self._resumable(file) and not self.here(file))
        if weights and (small := sorted(set(files) - set(weights))):
            self._by_client(snapshot_download, progress, allow_patterns=small)
        for file in weights:
            self._one(file, progress)
        return self._by_client(snapshot_download, progress, allow_patterns=sorted(files))

    def _by_client(self, get: Callable[..., Any], progress: Progress, **which: Any) -> Path:
        bars = progress.bars()
        return Path(get(self.id, revision=self.commit, local_files_only=self.offline, tqdm_class=bars, **which))

    def _resumable(self, file: str) -> bool:
        return not self.offline and file in self.files and file.endswith(_WEIGHTS)

    def _download(self, fetch: Callable[[Progress], Path], files: Collection[str], *, tries: int) -> Path:
        try:
            return download(fetch, lambda: self._missing_bytes(files), self.stop, tries=tries)
        except HubError:
            raise
        except Exception as error:  # hf_xet and mirrors raise what huggingface_hub does not name
            raise HubError(f"{', '.join(sorted(files))} of {self.name}: {said(error)}") from error

    def _missing_bytes(self, files: Collection[str]) -> int:
        """Without what has come of weights before."""
        missing = 0
        for file in files:
            if file in self.files and not self.here(file):
                told = self.files[file]
                missing += max(told.size_bytes - Partial(self.id, file, told.stamp).size_bytes, 0)
        return missing

    def _listed_before(self) -> Mapping[str, RepositoryFile] | None:
        """All files, as the hub told them when some were fetched. The hash of a large one is known where it is here:
        its place in the cache is named for that."""
        try:
            listed = get_cached_repo_tree(self.id, revision=self.commit)
        except CachedRepoTreeNotFoundError:
            return None
        found = {}
        for file in listed:
            place = try_to_load_from_cache(self.id, file.path, revision=self.commit)
            digest = known_sha256(Path(place)) if isinstance(place, str) else None
            found[file.path] = RepositoryFile(file.size, digest or file.blob_id, digest)
        return found


def stamp_of(told: os.stat_result) -> str:
    """Of a file in a :class:`Folder`: another one once it was written to."""
    return sha256(f"{told.st_mtime_ns} {told.st_size}".encode()).hexdigest()


def known_sha256(path: Path) -> str | None:
    """Of a file in the client's cache, without reading it: what is large is linked to a place that is named for it.
    None where nothing says it."""
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    return blob if _SHA256.fullmatch(blob) else None


def open_repository(source: str, stop: Event | None = None) -> Repository:
    """A folder, or a repository of the hub by its id, whose downloads are given up once ``stop`` is set. Raises
    :class:`~adapters.errors.HubError` for what is neither."""
    if Path(source).is_dir():
        return Folder(Path(source))
    if not _ID.fullmatch(source):
        raise HubError(f"{source!r} is neither a folder nor the id of a repository, OWNER/NAME or OWNER/NAME@REVISION")
    return HubRepository.open(source, stop)


def fetch_backbone(repository: Repository) -> Path:
    """The folder with a checkpoint's configuration and weights, once they are there.

    Raises :class:`~adapters.errors.HubError`, and :class:`~adapters.errors.BackboneError` where it has no weights as
    safetensors.
    """
    files = repository.files
    weights = [file for file in files if file == WHOLE] or [
        file for file in files if file == INDEX or fnmatch(file, "model-*.safetensors")
    ]
    if not weights and any(fnmatch(file, pattern) for file in files for pattern in PICKLES):
        raise BackboneError(pickle_refused(repository.name.partition("@")[0]))
    return repository.fetch_all([*weights, *(file for file in _CONFIGURATION if file in files)])


def _remote_files(repo: str, commit: str) -> Mapping[str, RepositoryFile]:
    found = {}
    for file in HfApi().list_repo_tree(repo, recursive=True, revision=commit):
        if isinstance(file, RepoFile):
            digest = file.lfs.sha256 if file.lfs is not None else None
            found[file.path] = RepositoryFile(file.size, digest or file.blob_id, digest)
    return found
