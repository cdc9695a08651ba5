"""Where a checkpoint's files lie: in a folder, or in a repository of a model hub, where they come when they are wanted.

The hub is spoken to by huggingface_hub alone: ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and
proxies mean here what they mean everywhere. A repository stays at the commit that it was opened at.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    resolve_revision,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import tqdm

from adapters.errors import BackboneError, HubError
from adapters.weights import INDEX, PICKLES, WHOLE, pickle_refused

log = logging.getLogger("tongues.hub")

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_CONFIGURATION = ("config.json", "preprocessor_config.json", "vocab.json", "tokenizer_config.json")
_EACH_SHARE = 0.1
_UNREACHABLE = (httpx2.TransportError, ConnectionError, TimeoutError)


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
                stamp = sha256(f"{told.st_mtime_ns} {told.st_size}".encode()).hexdigest()
                found[path.name] = RepositoryFile(told.st_size, stamp)
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
    """A repository of a hub at one commit. Without a network its files are those that were fetched before."""

    id: str
    commit: str
    offline: bool = False

    @classmethod
    def open(cls, source: str) -> HubRepository:
        """``source``: ``OWNER/NAME`` or ``OWNER/NAME@REVISION``. Where the hub cannot be reached, the commit that the
        cache knows. Raises :class:`~adapters.errors.HubError` saying what would help."""
        repo, _, revision = source.partition("@")
        try:
            commit = resolve_revision(repo, revision=revision or None).resolved
        except RevisionResolutionError as error:
            raise HubError(
                f"{source}: the hub at {constants.ENDPOINT} cannot be reached, and nothing of it was fetched before: "
                f"{error.__cause__ or error}"
            ) from error
        except (HfHubHTTPError, HFValidationError, *_UNREACHABLE) as error:
            raise HubError(f"{source}: {_said(error)}") from error
        found = cls(repo, commit, offline=constants.is_offline_mode())
        try:
            _ = found.files
        except HubError as error:
            if found.offline:
                raise
            found = cls(repo, commit, offline=True)
            _ = found.files
            log.warning("%s; what was fetched before is served", error)
        return found

    @property
    def name(self) -> str:
        return f"{self.id}@{self.commit[:12]}"

    @cached_property
    def files(self) -> Mapping[str, RepositoryFile]:
        """Raises :class:`~adapters.errors.HubError` where they cannot be listed."""
        if self.offline:
            return self._cached_files()
        try:
            return _remote_files(self.id, self.commit)
        except (HfHubHTTPError, *_UNREACHABLE) as error:
            raise HubError(f"{self.id}: {_said(error)}") from error

    def here(self, file: str) -> bool:
        return isinstance(try_to_load_from_cache(self.id, file, revision=self.commit), str)

    def fetch(self, file: str) -> Path:
        if not self.offline and not self.here(file):
            log.info("fetching %s of %s", file, self.name)
        try:
            found = hf_hub_download(
                self.id, file, revision=self.commit, local_files_only=self.offline, tqdm_class=_Logged
            )
        except (HfHubHTTPError, EntryNotFoundError, OSError, *_UNREACHABLE) as error:
            raise HubError(f"{file} of {self.id}: {_said(error)}") from error
        return Path(found)

    def forget(self, file: str) -> None:
        if not self.offline and self.here(file):
            self.fetch(file).resolve().unlink(missing_ok=True)

    def fetch_all(self, files: Collection[str]) -> Path:
        if not self.offline and not all(map(self.here, files)):
            size = sum(self.files[file].size_bytes for file in files if file in self.files)
            log.info("fetching %s from %s: %.1f MB", self.name, constants.ENDPOINT, size / 1e6)
        try:
            return Path(
                snapshot_download(
                    self.id,
                    revision=self.commit,
                    allow_patterns=sorted(files),
                    local_files_only=self.offline,
                    tqdm_class=_Logged,
                )
            )
        except (HfHubHTTPError, EntryNotFoundError, OSError, *_UNREACHABLE) as error:
            raise HubError(f"{self.id}: {_said(error)}") from error

    def _cached_files(self) -> Mapping[str, RepositoryFile]:
        """Only those that are here; a large file's place in the cache is named for its hash."""
        try:
            listed = get_cached_repo_tree(self.id, revision=self.commit)
        except CachedRepoTreeNotFoundError as error:
            raise HubError(f"{self.id}: nothing of {self.commit[:12]} was fetched before: {error}") from error
        found = {}
        for file in listed:
            if self.here(file.path):
                blob = self.fetch(file.path).resolve().name
                found[file.path] = RepositoryFile(file.size, blob, blob if len(blob) == 64 else None)
        return found


def open_repository(source: str) -> Repository:
    """A folder, or a repository of the hub by its id. Raises :class:`~adapters.errors.HubError` for what is neither."""
    if Path(source).is_dir():
        return Folder(Path(source))
    if not _ID.fullmatch(source):
        raise HubError(f"{source!r} is neither a folder nor the id of a repository, OWNER/NAME or OWNER/NAME@REVISION")
    return HubRepository.open(source)


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


def _said(error: Exception) -> str:
    """What went wrong, and what would help."""
    if isinstance(error, GatedRepoError):
        return "its owner grants access to it: ask there, and give a token in HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private: check its id, or give a token in HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision of it"
    if isinstance(error, HfHubHTTPError):
        return f"the hub at {constants.ENDPOINT} answered {error.response.status_code}"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, (HfHubHTTPError, *_UNREACHABLE)):
        return _said(error.__cause__)
    if isinstance(error, EntryNotFoundError):
        return "it is not in the cache, and the hub is not asked" if constants.is_offline_mode() else str(error)
    if isinstance(error, _UNREACHABLE):
        return f"the hub at {constants.ENDPOINT} cannot be reached: {str(error) or type(error).__name__}"
    return str(error)


class _Logged(tqdm):
    """A download's progress in the log, a line for each tenth; of a snapshot's bars that of the bytes that came."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": False, "file": io.StringIO()})  # type: ignore[no-untyped-call]
        self._told = self.unit == "B" and not str(self.desc).startswith("Reconstructing")
        self._said = 0.0

    def update(self, n: float | None = 1) -> bool | None:
        shown: bool | None = super().update(n)
        if self._told and self.total and self.n >= (self._said + _EACH_SHARE) * self.total:
            self._said = self.n / self.total
            log.info("fetched %.1f of %.1f MB", self.n / 1e6, self.total / 1e6)
        return shown

    def display(self, *args: Any, **options: Any) -> None:
        """Nothing: a bar is of use to a terminal alone."""
