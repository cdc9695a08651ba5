"""The manifest of a corpus: JSON Lines, one clip a line, paths relative to the manifest."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast, get_args

from adapters.durable import naming
from adapters.errors import DataError
from adapters.language import language_key

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_TEXT_FIELDS = ("path", "text", "language", "source", "licence", "split")
_OPTIONAL = {"voice", "synthetic", "phones"}
_MOST_SECONDS = 1e6
_FIELDS = {*_TEXT_FIELDS, *_OPTIONAL, "seconds"}


@dataclass(frozen=True)
class Clip:
    """One recording and what it says."""

    path: Path
    """16 kHz mono audio; as read, already joined to the manifest's folder."""
    seconds: float
    text: str
    """Normalised: lower case, no punctuation; NFC and single spaces, whatever the manifest has."""
    language: str
    """BCP 47, without a region."""
    source: str
    """Family of packages that it came from, e.g. ``tuxpaint``."""
    licence: str
    """SPDX identifier."""
    split: Split
    voice: str | None = None
    """Who speaks, where that is known; unique across languages."""
    synthetic: bool = False
    """Spoken by a synthesizer."""
    phones: tuple[tuple[str, float], ...] = ()
    """What a synthesizer spoke and when each phone begins, in seconds, in order."""
    where: str = field(default="", compare=False, repr=False)
    """File and line, for messages."""

    def fault(self, wrong: str) -> DataError:
        """To be raised where something is wrong with the clip: it says in which line it stands."""
        return DataError(f"{self.where}: {wrong}" if self.where else wrong)


def clip_to_json(clip: Clip, folder: Path) -> dict[str, object]:
    """The manifest's line for `clip`, its path relative to `folder` where it lies below it."""
    path = clip.path
    if path.is_absolute() or folder != Path():
        absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
        path = absolute.relative_to(base) if absolute.is_relative_to(base) else absolute
    record: dict[str, object] = {
        "path": path.as_posix(),
        "seconds": round(clip.seconds, 4),
        "text": clip.text,
        "language": clip.language,
        "source": clip.source,
        "licence": clip.licence,
        "split": clip.split,
    }
    if clip.voice is not None:
        record["voice"] = clip.voice
    if clip.synthetic:
        record["synthetic"] = True
    if clip.phones:
        record["phones"] = [[name, round(start, 3)] for name, start in clip.phones]
    return record


def clip_from_json(record: object, folder: Path, where: str) -> Clip:
    """A line of a manifest as a clip. `where` (file and line) begins the message of any DataError."""
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(record).__name__}")
    missing = sorted(_FIELDS - _OPTIONAL - record.keys())
    if missing:
        raise DataError(f"{where}: missing {', '.join(missing)}")
    unknown = sorted(record.keys() - _FIELDS)
    if unknown:
        raise DataError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(_FIELDS))}")
    for name in _TEXT_FIELDS:
        value = record[name]
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: {name} must be a text that is not empty, got {value!r}")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise DataError(f"{where}: {name} has a character in it that no text has: {value[:80]!a}")
    seconds = record["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < _MOST_SECONDS:
        raise DataError(f"{where}: seconds must be a positive number, got {_shown(seconds)}")
    if language_key(record["language"]) is None:
        raise DataError(f"{where}: language must be a tag, such as 'de', got {record['language'][:40]!r}")
    if record["split"] not in SPLITS:
        raise DataError(f"{where}: split must be one of {', '.join(SPLITS)}, got {record['split']!r}")
    voice = record.get("voice")
    if voice is not None and (not isinstance(voice, str) or not voice):
        raise DataError(f"{where}: voice must be a text that is not empty, or left out, got {voice!r}")
    synthetic = record.get("synthetic", False)
    if not isinstance(synthetic, bool):
        raise DataError(f"{where}: synthetic must be true or false, or left out, got {synthetic!r}")
    return Clip(
        phones=_phones(record.get("phones", []), where),
        where=where,
        path=folder / record["path"],
        seconds=float(seconds),
        text=" ".join(unicodedata.normalize("NFC", record["text"]).split()),
        language=record["language"],
        source=record["source"],
        licence=record["licence"],
        split=cast(Split, record["split"]),
        voice=voice,
        synthetic=synthetic,
    )


def _shown(value: object) -> str:
    try:
        return repr(value)[:40]
    except ValueError:  # Python writes no number of thousands of digits
        return "one of thousands of digits"


def _phones(value: object, where: str) -> tuple[tuple[str, float], ...]:
    """Pairs of a name and a start in seconds, in order."""
    pairs: list[Any] = value if isinstance(value, list) else [value]
    good = all(isinstance(pair, list) and [*map(type, pair)] in ([str, float], [str, int]) for pair in pairs)
    if not good or any(one[1] > other[1] for one, other in pairwise(pairs)):
        raise DataError(f"{where}: phones must be pairs of a name and a start in seconds, in order, or left out")
    return tuple((name, float(start)) for name, start in pairs)


def read_json_lines(path: Path) -> list[tuple[str, object]]:
    """Every line that is not blank, parsed, with `file:line` for messages. DataError where it is not JSON."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; `tongues data build --out DIR` writes DIR/manifest.jsonl") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as UTF-8 text: {error}") from error
    records: list[tuple[str, object]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            records.append((where, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not a line of JSON: {error}") from error
    return records


def write_text_atomically(path: Path, text: str) -> None:
    """Write beside `path`, sync, and replace: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json_lines(path: Path, records: Iterable[object]) -> None:
    """One JSON value a line, replaced atomically."""
    write_text_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write `clips` to `path`, whole or not at all; their paths become relative to its folder."""
    write_json_lines(path, (clip_to_json(clip, path.parent) for clip in clips))


def read_manifest(path: Path, *, check_files: bool = False) -> list[Clip]:
    """Read and validate a manifest.

    Raises:
        DataError: not a manifest, an empty one, a clip listed twice, or (with `check_files`) one whose file is
            missing; the message names the file and the line.
    """
    clips: list[Clip] = []
    lines: dict[Path, str] = {}
    for where, record in read_json_lines(path):
        clip = clip_from_json(record, path.parent, where)
        if clip.path in lines:
            raise DataError(
                f"{where}: {clip.path} is listed already at {lines[clip.path]}; each clip belongs there once"
            )
        if check_files and not clip.path.is_file():
            raise DataError(f"{where}: no such file: {clip.path}")
        lines[clip.path] = where
        clips.append(clip)
    if not clips:
        raise DataError(f"{path}: no clips in it")
    return clips


def clips_key(clips: Iterable[Clip]) -> str:
    """Which clips these are, in any order and wherever they lie, as 16 hex digits: what results of them stand on."""
    told = sorted(
        "\0".join((clip.path.name, clip.language, clip.source, clip.split, clip.text, f"{clip.seconds:.3f}"))
        for clip in clips
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
