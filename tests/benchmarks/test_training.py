"""The trunk cache next to none, small."""

from __future__ import annotations

import pytest

from adapters.training.train_config import TrainConfig
from benchmarks.training import WAYS, Taken, once, table


@pytest.mark.parametrize("way", WAYS)
def test_a_run_has_all_figures(way, tones, trained, tmp_path):
    config = TrainConfig(size=4, layers=1, steps=4, batch_s=8.0)
    taken = once(tones, trained.models, "es", tmp_path, config, way, "cpu")
    assert taken.speed > 0
    assert taken.cer >= 0
    assert (taken.making_s > 0) is (way == "kept")
    assert not list((trained.models).glob("adapters/*/trunk*"))


def test_the_table_has_the_ratio_of_each_round():
    taken = {"kept": [Taken(30, 5, 20), Taken(40, 5, 21)], "computed": [Taken(10, 0, 20), Taken(10, 0, 21.5)]}
    told = table(taken, "fr", 2)
    assert "**3.50 times** as fast as with all computed (3.00 to 4.00)" in told
    assert "| computed | 10.0 | 0 | 20.0, 21.5 |" in told
