"""`tongues routes` as it is typed: which ways it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from adapters.training import routes
from adapters.training.manifest import read_manifest, write_manifest
from app.cli import app
from tests.adapters.training.tones import write_corpus


@pytest.mark.parametrize(("language", "ways"), [("es", 12), ("xmf", 10)])
def test_sounds_are_left_out_where_they_are_not_known_and_that_is_said(tmp_path, monkeypatch, language, ways):
    manifest = write_corpus(tmp_path / "tones", counts={"train": 2})
    write_manifest(manifest, [replace(clip, language=language) for clip in read_manifest(manifest)])
    taken: list[routes.Way] = []

    def taking(wanted: list[routes.Way], *_: object, **__: object) -> list[routes.Made]:
        taken.extend(wanted)
        return []

    monkeypatch.setattr(routes, "run_ways", taking)
    result = CliRunner().invoke(app, ["routes", "--data", str(manifest), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert len(taken) == ways
    assert {way.halfway for way in taken} == ({"letters", "sounds"} if language == "es" else {"letters"})
    told = "without sounds half way up: eSpeak NG has no voice 'xx'"
    assert (told in result.stderr) is (language == "xx")


def test_a_manifest_that_is_not_there_is_told_in_one_line(tmp_path):
    result = CliRunner().invoke(app, ["routes", "--data", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path}/none.jsonl: no such file")
