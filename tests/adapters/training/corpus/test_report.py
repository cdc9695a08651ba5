from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from adapters.errors import DataError
from adapters.training.corpus.report import (
    LeftOut,
    make_report,
    read_left_out,
    report_table,
    write_left_out,
    write_report,
)
from adapters.training.manifest import Clip


def test_report(tmp_path: Path) -> None:
    clips = [
        Clip(Path("a"), 90.0, "el gos", "ca", "tuxpaint", "GPL-2.0-or-later", "train"),
        Clip(Path("b"), 30.0, "òs", "ca", "tuxpaint", "GPL-2.0-or-later", "test"),
    ]
    report = make_report(clips, [("ca", "digits"), ("ca", "digits"), ("be", "empty text")])
    write_report(tmp_path / "report.json", report)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert list(saved) == ["be", "ca"]
    assert saved["ca"] == {
        "clips": {"train": 1, "dev": 0, "test": 1},
        "minutes": {"train": 1.5, "dev": 0.0, "test": 0.5},
        "sources": {"tuxpaint": 2},
        "letters": "eglosò",
        "rejects": {"digits": 2},
    }
    shown = io.StringIO()
    Console(file=shown, width=120).print(report_table(report))
    assert "1, 1.5" in shown.getvalue()
    assert "2 digits" in shown.getvalue()
    assert "2, 2.0" in shown.getvalue()


def test_what_is_left_out_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "left-out.jsonl"
    assert read_left_out(path) == []
    told = [LeftOut("list.csv:2", "digits", "ka", "own"), LeftOut("é.wav", "silence", "ka", "own")]
    write_left_out(path, told)
    assert read_left_out(path) == told


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"where": "x"}', '{"where": "x", "reason": 1, "language": "", "source": ""}']
)
def test_a_line_that_tells_of_something_else_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "left-out.jsonl").write_text(line)
    with pytest.raises(DataError, match=r"left-out\.jsonl:1: expected where, reason, language and source"):
        read_left_out(tmp_path / "left-out.jsonl")
