"""What has come of a file of a hub: it outlives the process that fetched it, and one process at a time goes on with it.

It lies in the cache of huggingface_hub as ``blobs/ETAG.KEY.tongues.incomplete``, KEY being of the file's name, and
becomes ``blobs/ETAG``. ``hf cache prune`` removes what nobody goes on with any more.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from adapters.download import Progress
from adapters.errors import HubError

log = logging.getLogger("tongues.hub")

_SUFFIX = ".tongues.incomplete"
_READ_BYTES = 1 << 20
_LOCK_POLL_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Partial:
    """What has come of a file of ``repo``, whose content the hub knows as ``etag``."""

    repo: str
    file: str
    etag: str

    @property
    def blob(self) -> Path:
        """Where the client looks for it once it is whole."""
        return Path(constants.HF_HUB_CACHE, self._folder, "blobs", self.etag)

    @property
    def path(self) -> Path:
        return self.blob.with_name(f"{self.etag}.{self._key}{_SUFFIX}")

    @property
    def size_bytes(self) -> int:
        """How much has come; 0 where nothing has."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def _folder(self) -> str:
        return repo_folder_name(repo_id=self.repo, repo_type="model")

    @property
    def _key(self) -> str:
        return hashlib.sha256(self.file.encode()).hexdigest()[:12]

    @contextmanager
    def alone(self, progress: Progress) -> Iterator[None]:
        """One process at a time, others wait; the client's own lock. Raises :class:`~adapters.errors.HubError` once the
        download is given up, or where no lock can be had."""
        with ExitStack() as held:
            with self._on_disk():
                self.blob.parent.mkdir(parents=True, exist_ok=True)
                lock = self._lock(self.etag)
                lock.parent.mkdir(parents=True, exist_ok=True)
                told = False
                while True:
                    progress.came(0, received=True)
                    try:
                        held.enter_context(WeakFileLock(lock, timeout=_LOCK_POLL_S))
                        break
                    except TimeoutError:
                        if not told:
                            log.info("%s of %s: another process fetches it, and is waited for", self.file, self.repo)
                        told = True
            yield

    @contextmanager
    def opened(self, at: int, size_bytes: int) -> Iterator[BinaryIO]:
        """To be gone on with from byte ``at``; from 0 in a new file, since where locks do not hold another process may
        have this one open. Raises :class:`~adapters.errors.HubError` for what the disk refuses; to be whole it needs
        ``size_bytes``."""
        with self._on_disk(size_bytes):
            if at == 0:
                self.drop()
            with self.path.open("r+b" if at else "xb") as file:
                file.seek(at)
                yield file

    def sha256(self, progress: Progress) -> str:
        """Of what lies on the disk."""
        found = hashlib.sha256()
        with self._on_disk(), self.path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                found.update(piece)
                progress.came(0, received=True)
        return found.hexdigest()

    def publish(self) -> None:
        """It is whole: the client may have it."""
        with self._on_disk():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            self.path.replace(self.blob)

    def drop(self) -> None:
        """It is of no use."""
        with self._on_disk():
            self.path.unlink(missing_ok=True)

    def drop_others(self) -> None:
        """What has come of the same file with other content, of an older commit say, and nobody goes on with."""
        for other in self.path.parent.glob(f"*.{self._key}{_SUFFIX}"):
            if other != self.path:
                with suppress(OSError), WeakFileLock(self._lock(other.name.partition(".")[0]), timeout=0.1):
                    other.unlink()

    def _lock(self, etag: str) -> Path:
        return Path(constants.HF_HUB_CACHE, ".locks", self._folder, f"{etag}.lock")

    @contextmanager
    def _on_disk(self, size_bytes: int = 0) -> Iterator[None]:
        """Raises :class:`~adapters.errors.HubError` for what the disk refuses."""
        try:
            yield
        except OSError as error:
            right = "let this user write there"
            if error.errno in _FULL:
                right = f"make room for {(size_bytes - self.size_bytes) / 1e6:.1f} MB more, and it goes on"
            said = f"{self.file} of {self.repo} cannot be written to {self.path.parent}: {error.strerror or error}"
            raise HubError(f"{said}; {right}, or name another place in HF_HOME") from error
