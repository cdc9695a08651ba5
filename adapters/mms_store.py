"""The languages of an MMS checkpoint: an adapter each, beside the backbone, fetched when it is first worn.

What there is follows from the list of files and from ``vocab.json`` alone, so that a thousand languages are registered
without a byte of their weights. A repository of a hub stays at its commit; a folder is listed again when it changes.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from adapters.config import BackboneSize
from adapters.errors import AdapterAway, AdapterCorrupt, AdapterFormatError, HubError, UnknownAdapter
from adapters.fit import check_tensors
from adapters.formats.files import read_header
from adapters.formats.mms import FILE, head_rows, mms_config, mms_language, mms_vocab, read_mms
from adapters.formats.tokenizer import ADDED, SPECIAL, TOKENIZER, Tokenizer
from adapters.loaded import LoadedAdapter
from adapters.location import Signature
from adapters.record import AdapterRecord, StoredFile
from adapters.repository import Folder, Repository, RepositoryFile, known_sha256, stamp_of
from adapters.shapes import parameter_count

log = logging.getLogger("tongues.adapters")

_VOCAB = "vocab.json"
_TOLD = (TOKENIZER, SPECIAL, ADDED)
_MOST_VOCAB_BYTES = 1 << 26
_BESIDE_BYTES = 1 << 20  # a file's header, and what else it may bring
_MOST_BYTES_EACH = 4


@dataclass(frozen=True)
class _Listing:
    """The files of languages by the names of these, their parts of the vocabulary, how texts are made of those, and the
    names whose file needs no network, which grow."""

    files: Mapping[str, tuple[str, RepositoryFile]]
    vocabs: Mapping[str, Mapping[str, int]]
    tokenizer: Tokenizer
    signatures: Mapping[str, Signature]
    here: set[str]


class MmsStore:
    """``adapter.LANG.safetensors`` beside a backbone, each under the name of its language (``deu``,
    ``uig-script_arabic``). Read only.

    ``width``: the backbone's ``adapter_attn_dim``. ``fingerprint``: the backbone's, which these adapters are made for.
    """

    def __init__(self, repository: Repository, width: int, size: BackboneSize, fingerprint: str) -> None:
        """Raises :class:`~adapters.errors.HubError` where there is no ``vocab.json``, or it cannot be read, or the
        tokenizer beside it makes other texts."""
        self._repository, self._width, self._size, self._fingerprint = repository, width, size, fingerprint
        self._stamp = self._stamp_now()
        self._listing = self._listed()

    def __repr__(self) -> str:
        return f"MmsStore({self._repository.name!r})"

    @property
    def remote(self) -> bool:
        """Whether files come over a network."""
        return not isinstance(self._repository, Folder)

    @property
    def pace_s(self) -> float:
        """A commit of a hub never changes."""
        return math.inf if self.remote else 0.0

    def signatures(self) -> Mapping[str, Signature]:
        """Of each language's file, and of the vocabulary. What a folder held before stands where it cannot be listed
        any more."""
        if (stamp := self._stamp_now()) != self._stamp:
            self._stamp = stamp
            try:
                self._listing = self._listed()
            except HubError as error:
                log.warning("what was listed before stands: %s", error)
        return self._listing.signatures

    def record(self, name: str) -> AdapterRecord:
        """What can be told before the file is there. Raises :class:`UnknownAdapter`, or :class:`AdapterFormatError`
        with what is wrong."""
        file, told = self._file(name)
        language = mms_language(name)
        if language is None:
            raise AdapterFormatError(name, f"{file} is for {name!r}, which is no code of a language")
        tokens, tokenizer = self._tokens(name), self._listing.tokenizer
        vocab = mms_vocab(name, tokens, tokenizer, self._rows(name, file, tokens))
        config = mms_config(self._width, vocab.size, self._size)
        most = _MOST_BYTES_EACH * parameter_count(config, self._size) + _BESIDE_BYTES
        if told.size_bytes > most:
            raise AdapterFormatError(name, f"{file} is of {told.size_bytes} bytes; such an adapter has {most} at most")
        spoken = vocab.to_json().encode()
        return AdapterRecord(
            name=name,
            language=language,
            config=config,
            weights=StoredFile(file, told.sha256 or told.stamp, told.size_bytes),
            vocab=StoredFile(_VOCAB, sha256(spoken).hexdigest(), len(spoken)),
            dtype="float32",
            fingerprint=self._fingerprint,
            training={"source": self._repository.name},
        )

    def here(self, record: AdapterRecord) -> bool:
        """Whether its file can be read without a network, as far as this process knows."""
        return record.name in self._listing.here

    def load(self, record: AdapterRecord, *, size: BackboneSize) -> LoadedAdapter:
        """Fetch and read it. Raises :class:`AdapterAway` where it cannot be had for now, :class:`AdapterCorrupt` where
        it is not the file that was listed, :class:`AdapterFormatError` and :class:`AdapterMismatch` where it does not
        fit."""
        name = record.name
        tensors = self._tensors(record)
        imported = read_mms(name, tensors, self._tokens(name), size, self._listing.tokenizer)
        dtype = str(next(iter(imported.tensors.values())).dtype).removeprefix("torch.")
        if imported.vocab.size != record.config.vocab_size:  # the head told how many rows it has when it came
            record = replace(record, config=replace(record.config, vocab_size=imported.vocab.size))
        # against the width of the backbone, not of the file: seats are made for that
        check_tensors(name, record.config, dtype, imported.tensors, imported.vocab, size)
        return LoadedAdapter(record, dict(imported.tensors), imported.vocab)

    def _file(self, name: str) -> tuple[str, RepositoryFile]:
        if (found := self._listing.files.get(name)) is None:
            raise UnknownAdapter(f"there is no adapter {name!r} in {self._repository.name}")
        return found

    def _tokens(self, name: str) -> Mapping[str, int]:
        if (found := self._listing.vocabs.get(name)) is None:
            raise AdapterFormatError(name, f"{_VOCAB} of {self._repository.name} has no part for {name!r}")
        return found

    def _rows(self, name: str, file: str, tokens: Mapping[str, int]) -> int | None:
        """How many its head has, if its file is here and the tokenizer may add any to ``tokens``."""
        if name not in self._listing.here or self._listing.tokenizer.added.keys() <= tokens.keys():
            return None
        try:
            return head_rows(read_header(name, self._repository.fetch(file)))
        except (HubError, OSError, AdapterFormatError):
            return None  # what is wrong with it is told when it is loaded

    def _tensors(self, record: AdapterRecord) -> dict[str, Tensor]:
        name, stored = record.name, record.weights
        told = self._file(name)[1]
        try:
            path = self._repository.fetch(stored.name)
            as_listed = path.stat().st_size == stored.size_bytes  # nothing larger is read
            content = path.read_bytes() if as_listed else b""
            written = not self.remote and stamp_of(path.stat()) != stored.sha256  # since the record was made
            digest = told.sha256 or (known_sha256(path) if self.remote else None)  # of what was listed without a hub
        except (HubError, OSError) as error:
            raise AdapterAway(name, str(error)) from error
        if not as_listed or written or (digest and sha256(content).hexdigest() != digest):
            self._listing.here.discard(name)
            self._repository.forget(stored.name)
            raise AdapterCorrupt(name, f"{stored.name} came as another file than {self._repository.name} lists")
        self._listing.here.add(name)
        try:
            return safetensors.torch.load(content)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise AdapterFormatError(name, f"{stored.name} is not safetensors: {error}") from error

    def _stamp_now(self) -> Hashable:
        """Another one where the listing may be another one."""
        if not isinstance(self._repository, Folder):
            return None
        folder = self._repository.path
        try:
            told = {"": folder.stat(), _VOCAB: (folder / _VOCAB).stat()}
            with os.scandir(folder) as entries:
                told |= {one.name: one.stat() for one in entries if _counts(one.name) and one.is_file()}
        except OSError:
            return None
        return tuple((name, one.st_mtime_ns, one.st_size) for name, one in sorted(told.items()))

    def _listed(self) -> _Listing:
        try:
            there = self._repository.files
        except OSError as error:
            raise HubError(f"{self._repository.name} cannot be listed: {error}") from error
        found = {matched["language"]: (file, told) for file, told in there.items() if (matched := FILE.fullmatch(file))}
        if not found:
            return _Listing({}, {}, Tokenizer(), {}, set())
        if _VOCAB not in there:
            raise HubError(f"{self._repository.name}: adapters of languages, and no {_VOCAB} that says what they speak")
        vocabs = self._read_vocabs()
        stamps = tuple(there[file].stamp for file in (_VOCAB, *_TOLD) if file in there)
        return _Listing(
            found,
            vocabs,
            self._read_tokenizer(there),
            {name: (told.stamp, *stamps) for name, (_, told) in sorted(found.items())},
            {name for name, (file, _) in found.items() if self._repository.here(file)},
        )

    def _read_vocabs(self) -> Mapping[str, Mapping[str, int]]:
        path = self._repository.fetch(_VOCAB)
        try:
            if path.stat().st_size > _MOST_VOCAB_BYTES:
                raise ValueError(f"{path.stat().st_size} bytes")
            found = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise HubError(f"{self._repository.name}: {_VOCAB} cannot be read: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
            raise HubError(f"{self._repository.name}: {_VOCAB} is not of the form {{language: {{token: id}}}}")
        return found

    def _read_tokenizer(self, there: Collection[str]) -> Tokenizer:
        for file in _TOLD:
            if file in there:
                try:
                    self._repository.fetch(file)
                except HubError as error:  # of a cache that was filled without it
                    log.warning("texts are made as transformers does without it: %s", error)
        try:
            return Tokenizer.read(self._repository.name, self._repository.fetch(_VOCAB).parent)
        except AdapterFormatError as error:
            raise HubError(f"{self._repository.name}: {error.reason}") from error


def _counts(file: str) -> bool:
    return file in _TOLD or FILE.fullmatch(file) is not None


def mms_store(repository: Repository, folder: Path, size: BackboneSize, fingerprint: str) -> MmsStore | None:
    """The languages beside the backbone in ``folder``, which is of ``repository``; None where it has none.

    Raises :class:`~adapters.errors.HubError`."""
    width = json.loads((folder / "config.json").read_bytes()).get("adapter_attn_dim")
    if width is None or not any(FILE.fullmatch(file) for file in repository.files):
        return None
    return MmsStore(repository, int(width), size, fingerprint)
