from __future__ import annotations

import logging

import pytest

from tests.app.live import Live
from tests.app.recordings import recording


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    messages = [r.getMessage() for r in caplog.records if r.name == "tongues.request"]
    return [dict(pair.split("=", 1) for pair in text.split(" ") if "=" in pair) for text in messages]


def test_a_line_a_request_with_the_time_of_its_stages(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tongues.request"):
        live.transcribe(recording("wav-16k"), headers={"X-Request-Id": "r-1"})
    (line,) = lines(caplog)
    assert (line["id"], line["status"], line["path"], line["adapter"]) == ("r-1", "200", "/transcribe", "es")
    stages = sum(float(line[f"{stage}_s"]) for stage in ("read", "open", "engine"))
    assert 0 < stages <= float(line["total_s"])
    assert line["audio_s"] == "2.0"


def test_a_path_cannot_forge_a_line(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tongues.request"):
        live.http.get("/x%0arequest id=forged")
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_probes_are_quiet(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tongues.request"):
        live.http.get("/health/live")
    assert lines(caplog) == []
