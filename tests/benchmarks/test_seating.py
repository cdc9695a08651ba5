from __future__ import annotations

import pytest

from adapters.backbone import read_config
from adapters.encoder import size_of
from adapters.shapes import parameter_count
from benchmarks.seating import seat_published, seat_random
from tests.benchmarks.conftest import SIZE


def test_bytes_are_counted_against_parameters(bench_model):
    found = seat_random("small", bench_model / "backbone", SIZE, 12, "cpu")
    config = read_config(bench_model / "backbone")
    each = 4 * parameter_count(SIZE.config(config.num_hidden_layers), size_of(config))
    assert found.parameter_bytes == [each * count for count in range(1, 13)]
    assert all(bank >= stated for bank, stated in zip(found.bank_bytes, found.parameter_bytes, strict=True))
    assert found.bank_bytes[-1] == pytest.approx(12 * each, rel=0.01)
    assert (len(found.seconds), len(found.unprepared_s)) == (12 + 100, 12)
    assert all(seconds > 0 for seconds in found.seconds + found.unprepared_s)


def test_published_adapters_are_seated_as_they_are(model_folder):
    found = seat_published("three", model_folder, "cpu")
    assert len(found.parameter_bytes) == 3
    assert found.parameter_bytes[2] > found.parameter_bytes[1] > found.parameter_bytes[0]
