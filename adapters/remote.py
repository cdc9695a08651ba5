"""Adapters in an object store or on a hub, through fsspec: ``s3://bucket/prefix``, ``hf://user/repo``, ``gs://...``."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

import fsspec
from fsspec.core import strip_protocol
from huggingface_hub.errors import EntryNotFoundError

from adapters.errors import StoreAway, StoreError
from adapters.location import RECORD, Kept, Signature, left_by_a_writer
from adapters.reason import reason

T = TypeVar("T")

# Put when a record is withdrawn, which is then known by the time of it.
_WITHDRAWN = "adapter.json.withdrawn"
_READ_ONLY = frozenset({"hf"})
_NOT_STORES = frozenset({"file", "local"})
_PACKAGES = {"s3": "tongues[remote]", "s3a": "tongues[remote]", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}}}
}
_READING: Mapping[str, dict[str, Any]] = {"hf": {"block_size": 0}}  # a stream, without asking for the size beforehand
_SIGNS = ("ETag", "etag", "generation", "blob_id", "LastModified", "mtime", "updated", "created", "size")
_PUT_AT = ("LastModified", "updated", "mtime", "created")
_PACE_S, _PACES_S = 2.0, {"hf": 60.0}  # a hub counts requests


def is_address(text: str) -> bool:
    """Whether this is ``protocol://...``, not the path of a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def check_address(address: str) -> None:
    """Raises :class:`~adapters.errors.StoreError` where no store can be at ``address``: a protocol that is not known,
    or one whose package is not installed."""
    protocol, _, path = address.partition("://")
    if protocol in _NOT_STORES or "::" in address:
        raise StoreError(f"{address!r} is no address of a store; a folder is named by its path alone")
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        wanted = f"pip install '{package}'" if package else str(error)
        raise StoreError(f"{protocol}:// needs a package that is not installed: {wanted}") from error
    except ValueError as error:
        raise StoreError(f"{protocol!r} is no protocol of a store, such as 's3' or 'hf'") from error
    if not path.strip("/"):
        raise StoreError(f"{address!r} names no bucket or repository")


class RemoteLocation:
    """The objects below an address: ``ADDRESS/NAME/adapter.json`` and what it names. Safe to use from any thread.

    Objects are put whole, so that one put of the record publishes. Writers of one process take turns, those of several
    cannot: of two that publish one name in the same moment the later put counts, and both may be told that they
    replaced what was there. A sweep looks at an object's time again right before it deletes it; where it is put again
    between those two requests, and read back too, a version may be published that lacks it and cannot be loaded.
    """

    remote = True

    def __init__(self, address: str) -> None:
        check_address(address)
        self.address = address.rstrip("/")
        self._protocol = self.address.partition("://")[0]
        self._root = strip_protocol(self.address).rstrip("/")
        self._turn, self._listing = threading.Lock(), threading.Lock()

    def __str__(self) -> str:
        return self.address

    @property
    def pace_s(self) -> float:
        return _PACES_S.get(self._protocol, _PACE_S)

    @cached_property
    def _files(self) -> Any:
        options = _OPTIONS.get(self._protocol, {})
        return fsspec.filesystem(self._protocol, use_listings_cache=False, skip_instance_cache=True, **options)

    def records(self) -> dict[str, Signature]:
        return {
            name: tuple(str(files[RECORD][sign]) for sign in _SIGNS if sign in files[RECORD])
            for name, files in self._listed().items()
            if RECORD in files
        }

    def read(self, name: str, file: str, max_bytes: int) -> bytes:
        path = self._path(name, file)
        reading = _READING.get(self._protocol, {})
        try:
            content: bytes = self._ask(lambda: self._files.cat_file(path, start=0, end=max_bytes + 1, **reading))
        except StoreAway:
            # An object without a byte has no range of them either, which stores refuse.
            if self._ask(lambda: self._files.info(path))["size"] != 0:
                raise
            return b""
        if len(content) > max_bytes:
            raise OSError(f"more than the {max_bytes} bytes that were expected")
        return content

    def prepare(self, name: str) -> None:
        """Nothing: objects need no folder."""

    def write(self, name: str, file: str, content: bytes) -> None:
        self._change(lambda: self._files.pipe_file(self._path(name, file), content))

    def withdraw(self, name: str) -> None:
        self._ask(lambda: self._files.info(self._path(name, RECORD)))
        self._change(lambda: self._files.rm_file(self._path(name, RECORD)))
        self.write(name, _WITHDRAWN, b"")

    def sweep(self, kept: Kept, grace_s: float) -> tuple[PurePosixPath, ...]:
        before_s = time.time() - grace_s
        deleted: list[PurePosixPath] = []
        for name, files in sorted(self._listed().items()):
            left = {file for file in files if left_by_a_writer(file) or file == _WITHDRAWN}
            stay = kept(name, left)
            old = left.difference(stay) if stay is not None else set()
            if not old:
                continue
            unnamed = files.get(RECORD) or files.get(_WITHDRAWN)
            if unnamed is None:  # by a publisher who was killed: it counts from now on
                self.write(name, _WITHDRAWN, b"")
            elif _put_at_s(unnamed) <= before_s:
                gone = [file for file in sorted(old - {_WITHDRAWN}) if self._delete_old(name, file, before_s)]
                if _WITHDRAWN in files and (RECORD in files or not left.difference(gone, {_WITHDRAWN})):
                    self._delete_old(name, _WITHDRAWN, before_s)
                deleted += [PurePosixPath(self._path(name, file)) for file in gone]
        return tuple(deleted)

    @contextmanager
    def writing(self) -> Iterator[None]:
        if self._protocol in _READ_ONLY:
            raise StoreError(f"the store {self} can be read only")
        with self._turn:
            yield

    def _path(self, name: str, file: str) -> str:
        return f"{self._root}/{name}/{file}"

    def _listed(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What is known of each object, by adapter and by its own name. Other objects are passed over."""
        try:
            with self._listing:  # some clients keep what they listed, and mind who fills that
                found = self._ask(self._list)
        except FileNotFoundError as error:
            raise StoreAway(f"the store {self} is not there: {reason(error)}") from error
        listed: dict[str, dict[str, dict[str, Any]]] = {}
        for path, told in found.items():
            folder, _, file = path.rpartition("/")
            below, _, name = folder.rpartition("/")
            if unquote(below) == unquote(self._root) and name[:1] not in ("", "."):  # hubs quote revisions or do not
                listed.setdefault(name, {})[file] = told
        return listed

    def _list(self) -> dict[str, dict[str, Any]]:
        self._files.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
        return found

    def _delete_old(self, name: str, file: str, before_s: float) -> bool:
        path = self._path(name, file)
        try:
            if _put_at_s(self._ask(lambda: self._files.info(path))) > before_s:
                return False
            self._change(lambda: self._files.rm_file(path))
        except FileNotFoundError:
            return False
        return True

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except FileNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise FileNotFoundError(reason(error)) from error
        except Exception as error:  # each client has a tree of its own
            raise StoreAway(f"the store {self} cannot be reached: {reason(error)}") from error

    def _change(self, call: Callable[[], object]) -> None:
        try:
            self._ask(call)
        except FileNotFoundError as error:
            raise StoreError(f"the store {self} cannot be written: {reason(error)}") from error
        except StoreAway as error:
            if isinstance(error.__cause__, PermissionError | NotImplementedError):
                raise StoreError(f"the store {self} cannot be written: {reason(error.__cause__)}") from error
            raise


def _put_at_s(told: Mapping[str, Any]) -> float:
    """When an object was put; now, for a store that does not tell."""
    at = next((told[key] for key in _PUT_AT if told.get(key) is not None), time.time())
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return at.timestamp() if isinstance(at, datetime) else float(at)
