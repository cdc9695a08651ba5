"""`tongues pretrain` as it is typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from adapters.backbone import fingerprint, load_backbone
from app.cli import app
from tests.adapters.training.tones import write_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tones"), counts={"train": 8, "dev": 1})


def pretrain(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["pretrain", *map(str, arguments)])


def test_processes_train_one_backbone_together_and_another_run_goes_on_from_it(manifest, tmp_path):
    short = ("--data", manifest, "--route-steps", 1, "--ctc-steps", 2, "--batch-s", 4, "--processes", 2)
    made = tmp_path / "models/one"
    assert pretrain(*short, "--out", made, "--run", tmp_path / "run").exit_code == 0
    assert load_backbone(made / "backbone").layer_count == 8
    record = json.loads((made / "backbone/pretraining.json").read_text())
    assert record["config"]["stages"]["ctc"]["batch_s"] == 4.0
    assert record["processes"] == 2

    further = tmp_path / "models/two"
    assert pretrain(*short, "--out", further, "--run", tmp_path / "next", "--start", made / "backbone").exit_code == 0
    record = json.loads((further / "backbone/pretraining.json").read_text())
    assert record["started_from"]["fingerprint"] == fingerprint(made / "backbone")
    assert fingerprint(further / "backbone") != fingerprint(made / "backbone")


@pytest.mark.parametrize("processes", [1, 2])
def test_what_goes_wrong_is_told_in_one_line(tmp_path, processes):
    result = pretrain("--data", tmp_path / "none.jsonl", "--out", tmp_path, "--processes", processes)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if "SIGTERM" not in line]
    assert line.startswith(f"error: {tmp_path}/none.jsonl: no such file")
