"""The languages of an MMS checkpoint: an adapter each, beside the backbone, fetched when it is first worn.

What there is follows from the list of files and from ``vocab.json`` alone, so that a thousand languages are registered
without a byte of their weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from adapters.config import BackboneSize
from adapters.errors import AdapterAway, AdapterCorrupt, AdapterFormatError, HubError, UnknownAdapter
from adapters.fit import check_tensors
from adapters.formats.mms import FILE, mms_config, mms_language, mms_vocab, read_mms
from adapters.loaded import LoadedAdapter
from adapters.location import Signature
from adapters.record import AdapterRecord, StoredFile
from adapters.repository import Folder, Repository, RepositoryFile
from adapters.shapes import parameter_count

_VOCAB = "vocab.json"
_MOST_VOCAB_BYTES = 1 << 26
_BESIDE_BYTES = 1 << 20  # a file's header, and what else it may bring
_MOST_BYTES_EACH = 4


class MmsStore:
    """``adapter.LANG.safetensors`` beside a backbone, each under the name of its language (``deu``,
    ``uig-script_arabic``). Read only.

    ``width``: the backbone's ``adapter_attn_dim``. ``fingerprint``: the backbone's, which these adapters are made for.
    """

    def __init__(self, repository: Repository, width: int, size: BackboneSize, fingerprint: str) -> None:
        """Raises :class:`~adapters.errors.HubError` where there is no ``vocab.json``, or it cannot be read."""
        self._repository, self._width, self._size, self._fingerprint = repository, width, size, fingerprint
        self._files: dict[str, tuple[str, RepositoryFile]] = {}
        for file, told in repository.files.items():
            if matched := FILE.fullmatch(file):
                self._files[matched["language"]] = (file, told)
        self._vocabs = self._read_vocabs() if self._files else {}
        stamp = repository.files[_VOCAB].stamp if self._files else ""
        self._signatures: dict[str, Signature] = {
            name: (told.stamp, stamp) for name, (_, told) in sorted(self._files.items())
        }

    def __repr__(self) -> str:
        return f"MmsStore({self._repository.name!r})"

    @property
    def remote(self) -> bool:
        """Whether files come over a network."""
        return not isinstance(self._repository, Folder)

    def signatures(self) -> dict[str, Signature]:
        """Of each language's file, and of the vocabulary; a repository stays at its commit."""
        return self._signatures

    def record(self, name: str) -> AdapterRecord:
        """What can be told before the file is there. Raises :class:`UnknownAdapter`, or :class:`AdapterFormatError`
        with what is wrong."""
        file, told = self._file(name)
        language = mms_language(name)
        if language is None:
            raise AdapterFormatError(name, f"{file} is for {name!r}, which is no code of a language")
        vocab = mms_vocab(name, self._tokens(name))
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
        """Whether its file can be read without a network."""
        return self._repository.here(record.weights.name)

    def load(self, record: AdapterRecord, *, size: BackboneSize) -> LoadedAdapter:
        """Fetch and read it. Raises :class:`AdapterAway` where it cannot be had for now, :class:`AdapterCorrupt` where
        it is not the file that was listed, :class:`AdapterFormatError` and :class:`AdapterMismatch` where it does not
        fit."""
        name = record.name
        tensors = self._tensors(record)
        imported = read_mms(name, tensors, self._tokens(name), size)
        dtype = str(next(iter(imported.tensors.values())).dtype).removeprefix("torch.")
        check_tensors(name, imported.config, dtype, imported.tensors, imported.vocab, size)
        return LoadedAdapter(record, dict(imported.tensors), imported.vocab)

    def _file(self, name: str) -> tuple[str, RepositoryFile]:
        if name not in self._files:
            raise UnknownAdapter(f"there is no adapter {name!r} in {self._repository.name}")
        return self._files[name]

    def _tokens(self, name: str) -> Mapping[str, int]:
        if name not in self._vocabs:
            raise AdapterFormatError(name, f"{_VOCAB} of {self._repository.name} has no part for {name!r}")
        return self._vocabs[name]

    def _tensors(self, record: AdapterRecord) -> dict[str, Tensor]:
        name, stored = record.name, record.weights
        told = self._file(name)[1]
        try:
            content = self._repository.fetch(stored.name).read_bytes()
        except (HubError, OSError) as error:
            raise AdapterAway(name, str(error)) from error
        if len(content) != stored.size_bytes or (told.sha256 and sha256(content).hexdigest() != told.sha256):
            self._repository.forget(stored.name)
            raise AdapterCorrupt(name, f"{stored.name} came as another file than {self._repository.name} lists")
        try:
            return safetensors.torch.load(content)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise AdapterFormatError(name, f"{stored.name} is not safetensors: {error}") from error

    def _read_vocabs(self) -> Mapping[str, Mapping[str, int]]:
        if _VOCAB not in self._repository.files:
            raise HubError(f"{self._repository.name}: adapters of languages, and no {_VOCAB} that says what they speak")
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


def mms_store(repository: Repository, folder: Path, size: BackboneSize, fingerprint: str) -> MmsStore | None:
    """The languages beside the backbone in ``folder``, which is of ``repository``; None where it has none.

    Raises :class:`~adapters.errors.HubError`."""
    width = json.loads((folder / "config.json").read_bytes()).get("adapter_attn_dim")
    if width is None or not any(FILE.fullmatch(file) for file in repository.files):
        return None
    return MmsStore(repository, int(width), size, fingerprint)
