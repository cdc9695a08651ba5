"""Recordings of one's own -> FLAC files and a manifest: the whole of `tongues data import`.

What is given is a table with a head, CSV or TSV as a spreadsheet, Common Voice or a field database writes it, with the
file and the transcript of each recording; or a folder in which each recording has a text file of its name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from adapters.errors import DataError
from adapters.language import language_key
from adapters.training.corpus.build import Reject, distinct, left_out, unhurried, with_usable_audio
from adapters.training.corpus.clip_audio import UnusableAudio, remove_broken_off
from adapters.training.corpus.report import (
    LEFT_OUT,
    LeftOut,
    Report,
    make_report,
    read_left_out,
    write_left_out,
    write_report,
)
from adapters.training.corpus.sources import Recording
from adapters.training.corpus.split import TEST_SECONDS, split_language, strictest
from adapters.training.corpus.text import ALPHABETS, UnusableText, normalise, normalise_any
from adapters.training.licence import check_licence
from adapters.training.manifest import SPLITS, Clip, Split, read_manifest, write_manifest

PATHS = ("path", "file", "filename", "file_name", "audio", "wav")
TEXTS = ("text", "sentence", "transcript", "transcription")
VOICES = ("voice", "speaker", "speaker_id", "client_id")
_SPLITS: dict[str, Split] = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("valid", "validation", "val", "development"), "dev"),
}  # fmt: skip
_RECORDED = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "aac", "aif", "aiff", "amr", "flac", "g722", "m4a", "mka", "mkv", "mov", "mp3", "mp4"),
        *("oga", "ogg", "opus", "wav", "webm", "wma"),
    )
)
"""What a file that is no text is told by to be a recording, in small letters."""
_MOST_TEST = 0.15  # of a language, which may have a few minutes alone
_REFUSED = "refused.jsonl"
_FIRST = 5  # of those that are left out, in a message
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Row:
    """A recording as it is listed, ``text`` None where it has none; ``where`` is for messages."""

    path: Path
    text: str | None
    where: str
    split: Split | None = None
    voice: str | None = None


def import_table(
    table: Path,
    out: Path,
    language: str,
    *,
    licence: str,
    source: str = "own",
    audio: Path | None = None,
    workers: int = 2,
    console: Console | None = None,
) -> tuple[Report, list[tuple[str, str]]]:
    """The recordings of ``table`` as a corpus in ``out``: manifest.jsonl, audio/, and of all that is there then
    report.json and left-out.jsonl; those of other languages and sources that lie there stay.

    ``audio``: the folder that the table's paths are relative to; its own, if left out. The report, and where each
    recording of the table that is not in the corpus was listed, and why.
    Raises :class:`~adapters.errors.DataError` for a table that is none, a tag of no language, a licence or a source
    that no manifest can name, and where nothing is left: what was wrong with each is in refused.jsonl then, and the
    corpus stays as it was.
    """
    console = console or Console(stderr=True)
    licence, source = check_licence(licence), check_source(source)
    key = language_key(language)
    if key is None:
        raise DataError(f"{language!r} is not the tag of a language, such as 'de'")
    rows = list(read_folder(table) if table.is_dir() else read_table(table, audio))
    manifest = out / "manifest.jsonl"
    there = read_manifest(manifest) if manifest.exists() else []
    others = [one for one in read_left_out(out / LEFT_OUT) if (one.language, one.source) != (key, source)]
    stay = [clip for clip in there if (clip.language, clip.source) != (key, source)]
    known = {clip.path.stem.partition("-")[0] for clip in stay if clip.language == key}
    rejects: list[Reject] = []
    recordings: list[Recording] = []
    told: set[tuple[Path, str]] = set()
    for row in rows:
        recording = Recording(row.path, "", row.text, key, source, licence, row.voice, row.where)
        try:
            text, content = _text(row, key), _content(row.path)
        except (UnusableAudio, UnusableText) as error:
            rejects.append(Reject(recording, error.reason))
            continue
        same = (row.path.resolve(), text)
        if content in known or same in told:
            reason = "there already, from another source" if content in known else "listed twice"
            rejects.append(Reject(recording, reason))
            continue
        told.add(same)
        recordings.append(replace(recording, text=text, name=f"{content}-{_name(row.path)}"))
    remove_broken_off(out / "audio")
    clips = with_usable_audio(distinct(recordings, rejects), out, workers, console, rejects)
    listed = {row.where: row for row in rows}
    clips = _with_split(unhurried(clips, rejects), listed, [clip for clip in stay if clip.language == key])
    places = {where: place for place, where in enumerate(listed)}
    left = sorted(left_out(rejects), key=lambda one: places[one.where])
    if not clips:
        raise _nothing_left(table, left, out / _REFUSED)
    (out / _REFUSED).unlink(missing_ok=True)
    write_manifest(manifest, [*stay, *sorted(clips, key=lambda clip: clip.path)])
    write_left_out(out / LEFT_OUT, [*others, *left])
    report = make_report([*stay, *clips], ((one.language, one.reason) for one in [*others, *left]))
    write_report(out / "report.json", report)
    return report, [(one.where, one.reason) for one in left]


def check_source(source: str) -> str:
    """The source without white space around it. Raises :class:`~adapters.errors.DataError` for what can name no folder,
    or would be several where sources are listed."""
    name = source.strip()
    if not name.isprintable() or name in ("", ".", "..") or set(name) & set(",/\\") or len(name.encode()) > 100:
        raise DataError(f"a source is a short name, with neither commas nor slashes in it, not {source[:80]!r}")
    return name


def _nothing_left(table: Path, left: Sequence[LeftOut], path: Path) -> DataError:
    """What was wrong with the first; with all of them it is written to ``path``."""
    if left:
        write_left_out(path, left)
    counts = Counter(one.reason for one in left)
    reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.most_common()) or "it is empty"
    first = "".join(f"; {one.where}: {one.reason}" for one in left[:_FIRST])
    more = f"; and {len(left) - _FIRST} more, all listed in {path}" if len(left) > _FIRST else ""
    return DataError(f"{table}: none of {len(left)} recordings can be used: {reasons}{first}{more}")


def _text(row: Row, language: str) -> str:
    """Normalised. Raises UnusableAudio where there is no such file, and UnusableText."""
    if not os.path.isfile(row.path):  # as it is where the system takes no such name
        raise UnusableAudio("missing audio", row.path)
    if row.text is None:
        raise UnusableText("no transcript", "")
    return normalise(row.text, language) if language in ALPHABETS else normalise_any(row.text, language)


def read_table(table: Path, audio: Path | None = None) -> Iterator[Row]:
    """Its rows. Raises :class:`~adapters.errors.DataError`, naming the line, for what is no such table."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not UTF-8 ({error}); save it as CSV in UTF-8") from error
    head = text.partition("\n")[0]
    parts = max("\t,;|", key=head.count)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=parts, quoting=_quoting(parts), skipinitialspace=True, strict=True
    )
    try:
        names: dict[str, str] = {name.strip().lower(): name for name in reader.fieldnames or [] if name}
    except csv.Error as error:
        raise DataError(f"{table}:1: not the head of a table: {error}") from error

    def column(known: Sequence[str], what: str) -> str:
        for name in known:
            if name in names:
                return names[name]
        there = ", ".join(map(repr, names)) or "nothing"
        raise DataError(f"{table}:1: no column with the {what}: one of {', '.join(known)}; there is {there}")

    path_of, text_of = column(PATHS, "file"), column(TEXTS, "transcript")
    voice_of = next((names[name] for name in VOICES if name in names), None)
    folder, row_ends = audio or table.parent, reader.reader.line_num
    try:
        for record in reader:
            row_ends = reader.reader.line_num
            where = f"{table}:{row_ends}"
            path, said = (record[path_of] or "").strip(), (record[text_of] or "").strip()
            if not path and not said:
                continue
            if not path or "\0" in path:
                raise DataError(f"{where}: no file is named")
            if any(cell.strip() for cell in record.get(None, [])):
                raise DataError(
                    f"{where}: more cells than the head has columns; a text with {parts!r} in it is put in "
                    "quotation marks"
                )
            split = (record[names["split"]] or "").strip().lower() if "split" in names else ""
            if split and split not in _SPLITS:
                raise DataError(f"{where}: split is one of {', '.join(_SPLITS)}, or empty, not {split[:40]!r}")
            voice = (record[voice_of] or "").strip() if voice_of else ""
            yield Row(folder / path, said, where, _SPLITS.get(split), voice or None)
    except csv.Error as error:
        line = reader.reader.line_num
        begun = f", in a row that begins after line {row_ends}" if row_ends + 1 < line else ""
        raise DataError(f"{table}:{line}: not a line of a table: {error}{begun}") from error


def read_folder(folder: Path) -> Iterator[Row]:
    """Each text file with the recording that has its name, and each recording without one. Raises
    :class:`~adapters.errors.DataError` where a text is not UTF-8."""
    recordings: dict[Path, list[Path]] = defaultdict(list)
    texts: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (texts if path.suffix.lower() == ".txt" else recordings[path.with_suffix("")]).append(path)
    for text in texts:
        for path in recordings.pop(text.with_suffix(""), [text.with_suffix("")]):
            try:
                yield Row(path, text.read_bytes().decode("utf-8-sig"), f"{text} and {path.name}")
            except UnicodeDecodeError as error:
                raise DataError(f"{text}: not UTF-8: {error}") from error
    for untold in recordings.values():
        yield from (Row(path, None, str(path)) for path in untold if path.suffix.lower() in _RECORDED)


def _quoting(parts: str) -> Literal[0, 3]:
    """Common Voice's tables have quotation marks that are only that."""
    return csv.QUOTE_NONE if parts == "\t" else csv.QUOTE_MINIMAL


def _name(path: Path) -> str:
    ascii_name = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    return _NOT_IN_NAMES.sub("_", ascii_name)[:80]


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UnusableAudio("cannot be read", path, str(error)) from error


def _with_split(clips: Sequence[Clip], rows: dict[str, Row], there: Sequence[Clip]) -> list[Clip]:
    """As the table says; where it says nothing, as other recordings of the text have it, of this table or ``there``;
    then by the texts, in shares that leave most to train on."""
    told = {clip.path: rows[clip.where].split for clip in clips}
    placed = strictest(
        [*((clip.text, told[clip.path]) for clip in clips), *((clip.text, clip.split) for clip in there)]
    )
    seconds: dict[str, float] = defaultdict(float)
    for clip in clips:
        if clip.text not in placed:
            seconds[clip.text] += clip.seconds
    placed |= split_language(dict(seconds), test_seconds=min(TEST_SECONDS, _MOST_TEST * sum(seconds.values())))
    return [replace(clip, split=told[clip.path] or placed[clip.text]) for clip in clips]
