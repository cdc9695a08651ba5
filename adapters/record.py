"""An adapter's commit record, ``adapter.json``: what the adapter is, and which files hold it, by hash."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, NoReturn

from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.language import language_tag

FORMAT = 1
DTYPES = ("float32", "float16", "bfloat16")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_RESERVED_NAMES = frozenset({"auto"})  # what a request names where it leaves the choice to the service
_HASH_PREFIX = 16
_SHOWN = 40
_MOST_LEVELS = 32
_LARGEST_WEIGHT = 1e6


@dataclass(frozen=True)
class StoredFile:
    """A file of an adapter, named for its content."""

    name: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, stem: str, suffix: str, content: bytes) -> StoredFile:
        """The name of ``content`` on disk: ``stem-HASH.suffix``."""
        digest = sha256(content).hexdigest()
        return cls(f"{stem}-{digest[:_HASH_PREFIX]}.{suffix}", digest, len(content))


@dataclass(frozen=True)
class StoredLanguageModel:
    """An n-gram model that beam searches use: its ARPA text in gzip, its weight ``alpha``, the bonus ``beta`` of a
    word."""

    file: StoredFile
    alpha: float
    beta: float


@dataclass(frozen=True)
class AdapterRecord:
    """Everything about a published adapter but its tensors.

    ``language`` is a BCP 47 tag. ``fingerprint`` is that of the backbone it was trained on, or None for an imported
    one, which is accepted by shape and called unverified. ``metrics`` holds, for each split that was measured, its
    error rates as fractions: ``{"test": {"wer": 0.31, "cer": 0.08}}``. ``training`` is free JSON. ``synthetic`` says
    that all the speech it learnt from was synthesised.
    """

    name: str
    language: str
    config: AdapterConfig
    weights: StoredFile
    vocab: StoredFile
    dtype: str
    default: bool = False
    fingerprint: str | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    synthetic: bool = False
    language_model: StoredLanguageModel | None = None

    @property
    def files(self) -> dict[str, StoredFile]:
        """What a version consists of beside its record, by what it is."""
        found = {"weights": self.weights, "vocab": self.vocab}
        return found if self.language_model is None else {**found, "language_model": self.language_model.file}

    @cached_property
    def version(self) -> str:
        """Twelve hex digits of the record's own hash: any change to it or to its files is another version."""
        return sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def verified(self) -> bool:
        """Whether it names the backbone that it was made for."""
        return self.fingerprint is not None

    def check_fits(self, fingerprint: str, size: BackboneSize) -> None:
        """Raises :class:`AdapterMismatch` where the record alone tells that the adapter is for another backbone."""
        if self.fingerprint not in (None, fingerprint):
            ours, theirs = fingerprint[:_HASH_PREFIX], str(self.fingerprint)[:_HASH_PREFIX]
            raise AdapterMismatch(self.name, f"made for the backbone {theirs}, and this is {ours}")
        if self.config.layers and self.config.layers[-1] >= size.layers:
            raise AdapterMismatch(self.name, f"adapts layer {self.config.layers[-1]} of {size.layers}, counted from 0")

    def check_names(self, came: Collection[str]) -> None:
        """Raises :class:`AdapterFormatError` for a file, by what it is, that the record does not name."""
        if more := set(came) - self.files.keys():
            raise AdapterFormatError(self.name, f"{min(more)} came, which adapter.json does not name")

    def to_json(self) -> str:
        """The content of ``adapter.json``; equal records give equal text. Raises :class:`AdapterFormatError`."""
        data = {
            "format": FORMAT,
            "name": self.name,
            "language": self.language,
            "default": self.default,
            "config": self.config.to_dict(),
            "fingerprint": self.fingerprint,
            "weights": _file_to_dict(self.weights),
            "vocab": _file_to_dict(self.vocab),
            "dtype": self.dtype,
            "metrics": {split: dict(rates) for split, rates in self.metrics.items()},
            "training": dict(self.training),
            "licence": self.licence,
            "synthetic": self.synthetic,
        }
        if (model := self.language_model) is not None:
            data["language_model"] = {**_file_to_dict(model.file), "alpha": model.alpha, "beta": model.beta}
        try:
            return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise AdapterFormatError(self.name, f"cannot be written as JSON: {error}") from error

    @classmethod
    def from_json(cls, name: str, data: str | bytes) -> AdapterRecord:
        """Read the record of the adapter ``name``. Raises :class:`AdapterFormatError` saying which field is wrong."""
        check_name(name)
        try:
            raw = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise AdapterFormatError(name, f"adapter.json is not JSON: {error}") from error
        if _deeper(raw, _MOST_LEVELS):
            raise AdapterFormatError(name, f"adapter.json is nested deeper than {_MOST_LEVELS} levels")
        fields = _Fields(name, raw)
        if fields.take("format", int) != FORMAT:
            raise AdapterFormatError(name, f"adapter.json is of format {_shown(raw['format'])}, not {FORMAT}")
        if fields.take("name", str) != name:
            raise AdapterFormatError(name, f"adapter.json is for {_shown(raw['name'])}")
        record = cls(
            name=name,
            language=_language(name, fields.take("language", str)),
            config=_config(name, fields.take("config", dict)),
            weights=_file(name, "weights", "safetensors", fields.take("weights", dict)),
            vocab=_file(name, "vocab", "json", fields.take("vocab", dict)),
            dtype=fields.take("dtype", str),
            default=fields.take("default", bool, False),
            fingerprint=fields.take("fingerprint", str, None),
            metrics=_metrics(name, fields.take("metrics", dict, {})),
            training=fields.take("training", dict, {}),
            licence=fields.take("licence", str, None),
            synthetic=fields.take("synthetic", bool, False),
            language_model=_language_model(name, fields.take("language_model", dict, None)),
        )
        fields.finish()
        if record.dtype not in DTYPES:
            raise AdapterFormatError(name, f"dtype is one of {', '.join(DTYPES)}, not {_shown(record.dtype)}")
        try:
            record.to_json().encode()
        except UnicodeEncodeError as error:
            raise AdapterFormatError(name, f"adapter.json holds what is not text: {error}") from error
        return record


def check_name(name: str) -> None:
    """Raises :class:`AdapterFormatError` unless ``name`` can name an adapter and the folder that it lies in."""
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED_NAMES:
        rule = "a name is 1 to 64 letters, digits, '.', '_' and '-', from a letter or digit on, and not 'auto'"
        raise AdapterFormatError(name[: 2 * _SHOWN], rule)


class _Fields:
    """Takes the fields of a JSON object one by one, each by its type."""

    def __init__(self, name: str, raw: object, where: str = "adapter.json") -> None:
        self.name, self.where = name, where
        if not isinstance(raw, dict):
            raise AdapterFormatError(name, f"{where} is not a JSON object")
        self.left: dict[str, Any] = dict(raw)

    def take(self, key: str, kind: type, *default: Any) -> Any:
        if key not in self.left and default:
            return default[0]
        if key not in self.left:
            raise AdapterFormatError(self.name, f"{self.where} lacks {key!r}")
        value = self.left.pop(key)
        if type(value) is not kind and not (value is None and default == (None,)):
            raise AdapterFormatError(
                self.name, f"{key!r} in {self.where} is {_shown(value)}, not of type {kind.__name__}"
            )
        return value

    def finish(self) -> None:
        if self.left:
            raise AdapterFormatError(self.name, f"{self.where} has the unknown field {_shown(min(self.left))}")


def _config(name: str, raw: dict[str, Any]) -> AdapterConfig:
    fields = _Fields(name, raw, "config")
    layers = fields.take("layers", list)
    if not all(type(layer) is int for layer in layers):
        raise AdapterFormatError(name, f"'layers' in config are whole numbers, not {_shown(layers)}")
    try:
        config = AdapterConfig(
            method=fields.take("method", str),
            size=fields.take("size", int),
            layers=tuple(layers),
            norms=fields.take("norms", str),
            vocab_size=fields.take("vocab_size", int),
            options=fields.take("options", dict, {}),
        )
    except ValueError as error:
        raise AdapterFormatError(name, f"config: {error}") from error
    fields.finish()
    return config


def _language(name: str, raw: str) -> str:
    tag = language_tag(raw)
    if tag is None:
        raise AdapterFormatError(name, f"{_shown(raw)} is not the tag of a language, such as 'de'")
    return tag


def _metrics(name: str, raw: dict[str, Any]) -> dict[str, dict[str, float]]:
    for split, rates in raw.items():
        if not isinstance(rates, dict) or not all(map(_is_rate, rates.values())):
            raise AdapterFormatError(name, f"metrics of {_shown(split)} are error rates by name, as fractions")
    return raw


def _language_model(name: str, raw: dict[str, Any] | None) -> StoredLanguageModel | None:
    if raw is None:
        return None
    weights = {key: raw.pop(key, None) for key in ("alpha", "beta")}
    for key, value in weights.items():
        if type(value) not in (int, float) or not -_LARGEST_WEIGHT <= value <= _LARGEST_WEIGHT:  # false for NaN too
            raise AdapterFormatError(name, f"{key!r} in language_model is a number, not {_shown(value)}")
    return StoredLanguageModel(_file(name, "words", "arpa.gz", raw), weights["alpha"], weights["beta"])


def _file(name: str, stem: str, suffix: str, raw: dict[str, Any]) -> StoredFile:
    """No path of any kind gets past this: the name follows from the hash."""
    fields = _Fields(name, raw, stem)
    stored = StoredFile(fields.take("file", str), fields.take("sha256", str), fields.take("bytes", int))
    fields.finish()
    if not re.fullmatch(r"[0-9a-f]{64}", stored.sha256) or stored.size_bytes < 0:
        raise AdapterFormatError(name, f"{stem} needs a sha256 of 64 hex digits and a size in bytes")
    named = f"{stem}-{stored.sha256[:_HASH_PREFIX]}.{suffix}"
    if stored.name != named:
        raise AdapterFormatError(name, f"{stem} of this hash lie in {named}, not in {_shown(stored.name)}")
    return stored


def _file_to_dict(stored: StoredFile) -> dict[str, Any]:
    return {"file": stored.name, "sha256": stored.sha256, "bytes": stored.size_bytes}


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e6


def _deeper(value: object, levels: int) -> bool:
    """Whether objects and lists lie more than ``levels`` deep in one another."""
    inside: list[object] = [value]
    for _ in range(levels + 1):
        inside = [
            part
            for one in inside
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not any(isinstance(part, dict | list) for part in inside):
            return False
    return True


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
