"""The command as it is run, at its smallest."""

from __future__ import annotations

import json

import pytest

from benchmarks import serving
from benchmarks.backbones import SHIPPED


@pytest.fixture
def command(model_folder, tmp_path):
    """What runs the parts that are named on the small model, and the results as written."""

    def run(*options):
        given = ["--models", str(model_folder), "--device", "cpu", "--out", str(tmp_path / "docs"), *options]
        serving.main(given)
        return json.loads((tmp_path / "docs/benchmarks.json").read_text())

    return run


def test_a_part_is_measured_written_and_kept(command, tmp_path, capsys):
    sizes = ("--adapters", "1", "--requests", "4", "--rounds", "2", "--systems", "engine")
    results = command("--parts", SHIPPED, *sizes, "--note", "A note.")
    runs = results["comparisons"][SHIPPED]["runs"]
    assert [run["round"] for run in runs] == [0, 1]
    told = (tmp_path / "docs/benchmarks.md").read_text()
    assert "### shipped" in told
    assert "bottlenecks of 64 in the top 4 layers" in told
    assert "A note." in told
    assert "</svg>" in (tmp_path / "docs/benchmarks.svg").read_text()
    assert "64 languages (64 clients), mixed / one" in capsys.readouterr().out

    http = ("--requests", "3", "--rounds", "1", "--long-s", "20")
    results = command("--parts", "http", *http)
    assert results["comparisons"][SHIPPED]["runs"] == runs
    assert {one["concurrency"] for one in results["http"]["mixing"]} == {1, 3}
    assert len(results["http"]["published_s"]) == 10
    assert results["http"]["beside"][0]["beside_p95_s"] > 0


def test_a_part_that_fails_leaves_its_reason_and_the_others(command, monkeypatch, tmp_path):

    def fail(*given):
        raise MemoryError("no more")

    monkeypatch.setattr(serving, "measure", fail)
    monkeypatch.setattr(serving, "_apart", lambda *given: [])
    (tmp_path / "docs").mkdir()
    earlier = {"machine": serving.machine("cpu", ""), "http": {"mixing": []}, "seating": []}
    (tmp_path / "docs/benchmarks.json").write_text(json.dumps(earlier))
    results = command("--parts", "http", "profile")
    assert "http" not in results, "what there was of it before is gone"
    assert "seating" in results
    assert results["failed"] == {"http": "MemoryError: no more"}
    assert results["profile"] == []
    assert "http could not be measured: MemoryError: no more" in (tmp_path / "docs/benchmarks.md").read_text()


def test_parts_of_two_machines_are_not_one_page(command, tmp_path):
    (tmp_path / "docs").mkdir()
    earlier = {"machine": {**serving.machine("cpu", ""), "device": "a GPU"}}
    (tmp_path / "docs/benchmarks.json").write_text(json.dumps(earlier))
    with pytest.raises(SystemExit, match=r"of another machine \(a GPU\): measure all parts, or give another --out"):
        command("--parts", "seating")


def test_no_part_by_another_name(command, capsys):
    with pytest.raises(SystemExit):
        command("--parts", "everything")
    assert "invalid choice" in capsys.readouterr().err
