from __future__ import annotations

import logging

import pytest

from tests.app.live import Live, wait_until
from tests.app.recordings import recording


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    messages = [r.getMessage() for r in caplog.records if r.name == "tongues.request"]
    return [dict(pair.split("=", 1) for pair in text.split(" ") if "=" in pair) for text in messages]


def test_a_line_a_request_with_the_time_of_its_stages(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tongues.request"):
        live.transcribe(recording("wav-16k"), headers={"X-Request-Id": "r-1"})
        wait_until(lambda: lines(caplog))  # it is written behind the answer
    (line,) = lines(caplog)
    assert (line["id"], line["status"], line["path"], line["adapter"]) == ("r-1", "200", "/transcribe", "es")
    stages = sum(float(line[f"{stage}_s"]) for stage in ("read", "open", "engine"))
    assert 0 < stages <= float(line["total_s"])
    assert line["audio_s"] == "2.0"


def test_what_went_wrong_is_in_the_line(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tongues.request"):
        live.transcribe(b"", "lang=es")
        live.transcribe(b"", "tongue=es")
        live.http.request("BREW", "/coffee")
        wait_until(lambda: len(lines(caplog)) == 3)
    assert [(line["status"], line["error"]) for line in lines(caplog)] == [
        ("400", "empty_audio"),
        ("422", "bad_parameter"),
        ("404", "no_such_path"),
    ]


def test_a_path_cannot_forge_a_line(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tongues.request"):
        live.http.get("/x%0arequest id=forged")
        wait_until(lambda: lines(caplog))
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_probes_are_quiet(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tongues.request"):
        live.http.get("/health/live")
        live.http.get("/adapters")
        wait_until(lambda: lines(caplog))
    assert [line["path"] for line in lines(caplog)] == ["/adapters"]
