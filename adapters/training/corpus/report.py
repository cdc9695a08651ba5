"""What a corpus holds and what was rejected, a language."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.table import Table

from adapters.errors import DataError
from adapters.training.manifest import SPLITS, Clip, read_json_lines, write_json_lines, write_text_atomically

LEFT_OUT = "left-out.jsonl"
"""Beside a manifest, the recordings that are not in it."""


@dataclass(frozen=True)
class LeftOut:
    """A recording that is not in the corpus, by where it was listed or where it lies, and why."""

    where: str
    reason: str
    language: str
    source: str


@dataclass
class LanguageReport:
    """Counts of one language."""

    clips: Counter[str] = field(default_factory=Counter)
    """By split."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By split."""
    sources: Counter[str] = field(default_factory=Counter)
    letters: set[str] = field(default_factory=set)
    rejects: Counter[str] = field(default_factory=Counter)
    """By reason."""


Report = dict[str, LanguageReport]


def make_report(clips: Iterable[Clip], rejects: Iterable[tuple[str, str]]) -> Report:
    """Counts by language of `clips` and of `rejects` (language, reason)."""
    report: Report = defaultdict(LanguageReport)
    for clip in clips:
        language = report[clip.language]
        language.clips[clip.split] += 1
        language.seconds[clip.split] += clip.seconds
        language.sources[clip.source] += 1
        language.letters.update(clip.text)
    for name, reason in rejects:
        report[name].rejects[reason] += 1
    return dict(sorted(report.items()))


def read_left_out(path: Path) -> list[LeftOut]:
    """What :func:`write_left_out` wrote, nothing where it did not. Raises :class:`~adapters.errors.DataError` for a
    line that is of another form."""
    found = []
    for where, record in read_json_lines(path) if path.exists() else ():
        if not isinstance(record, dict) or set(map(type, record.values())) != {str}:
            raise DataError(f"{where}: expected where, reason, language and source")
        try:
            found.append(LeftOut(**record))
        except TypeError as error:
            raise DataError(f"{where}: expected where, reason, language and source: {error}") from error
    return found


def write_left_out(path: Path, left_out: Iterable[LeftOut]) -> None:
    """One a line, as JSON."""
    write_json_lines(path, map(asdict, left_out))


def write_report(path: Path, report: Report) -> None:
    """The report as JSON."""
    content = {
        name: {
            "clips": {split: language.clips[split] for split in SPLITS},
            "minutes": {split: round(language.seconds.get(split, 0.0) / 60, 2) for split in SPLITS},
            "sources": dict(sorted(language.sources.items())),
            "letters": "".join(sorted(language.letters - {" "})),
            "rejects": dict(language.rejects.most_common()),
        }
        for name, language in report.items()
    }
    write_text_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def report_table(report: Report) -> Table:
    """The report for a terminal: clips and minutes a split, rejects by reason."""
    table = Table("language", title="corpus")
    for split in (*SPLITS, "all"):
        table.add_column(f"{split}\nclips, min", justify="right")
    table.add_column("rejected, why")
    totals: Counter[str] = Counter()
    lengths: dict[str, float] = defaultdict(float)
    rejected = 0
    for name, language in report.items():
        for split in SPLITS:
            totals[split] += language.clips[split]
            lengths[split] += language.seconds.get(split, 0.0)
        rejected += language.rejects.total()
        reasons = ", ".join(f"{count} {reason}" for reason, count in language.rejects.most_common())
        table.add_row(name, *_cells(language.clips, language.seconds), reasons)
    table.add_section()
    table.add_row("all", *_cells(totals, lengths), str(rejected))
    return table


def _cells(clips: Counter[str], seconds: dict[str, float]) -> list[str]:
    cells = [f"{clips[split]}, {seconds.get(split, 0.0) / 60:.1f}" for split in SPLITS]
    return [*cells, f"{clips.total()}, {sum(seconds.values()) / 60:.1f}"]
