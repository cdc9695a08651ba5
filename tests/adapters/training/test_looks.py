"""Looks at the dev split on the way, against what the published adapter hears."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adapters.training.train import train
from tests.adapters.training.conftest import ADAPTING


def looks(run):
    lines = map(json.loads, (run / "progress.jsonl").read_text().splitlines())
    return [line["dev_cer"] for line in lines if "dev_cer" in line]


def test_the_best_look_is_what_the_published_adapter_comes_to(trained):
    for language, record in trained.records.items():
        seen = looks(trained.runs / language)
        assert len(seen) == 2, "before the first step, and after the last"
        assert min(seen) == pytest.approx(record.metrics["dev"]["cer"], abs=0.02)
        assert record.metrics["dev"]["cer"] < 0.5, "a model that hears nothing proves nothing"


@pytest.mark.parametrize("method", ["bottleneck", "head", "full"])
def test_looks_are_the_same_with_the_trunk_kept_and_without(trained, models, tmp_path, method):
    config = replace(ADAPTING, method=method, steps=8, layers=1 if method == "full" else ADAPTING.layers)
    seen = {}
    for keep in (True, False):
        run = tmp_path / f"kept-{keep}"
        out = run / "out" if method == "full" else None
        train(trained.manifest, models, "es", run, config, name=f"kept-{keep}".lower(), out=out, keep_trunk=keep)
        seen[keep] = looks(run)
    assert seen[True] == pytest.approx(seen[False], abs=0.02)
