"""The arithmetic of targets and tables, on made figures."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.plot import draw
from benchmarks.report import page, target_table
from benchmarks.targets import Target, ratios, targets


def run(system: str, number: int, rtfx: float, **cell: Any) -> dict[str, Any]:
    usual = {"clips": "1-15 s", "adapters": 64, "popularity": "uniform", "concurrency": 64, "requests": 9}
    timing = {"rtfx": rtfx, "p50_s": 0.25, "p95_s": 0.5}
    return {"backbone": "wav2vec2-base", "system": system, "cell": {**usual, **cell}, "round": number, "timing": timing}


@pytest.fixture
def results() -> dict[str, Any]:
    runs = [
        *(run("engine", number, rtfx) for number, rtfx in enumerate([10.0, 12.0, 8.0])),
        *(run("bare", number, rtfx) for number, rtfx in enumerate([10.0, 15.0, 8.0])),
        *(run("load_adapter", number, 5.0) for number in range(2)),
        run("engine", 0, 24.0, clips="1-2 s"),
        run("load_adapter", 0, 20.0, clips="1-2 s"),
    ]
    timing = {"rtfx": 50.0, "p50_s": 0.1, "p95_s": 0.2}
    found = {
        "backbone": "wav2vec2-base",
        "runs": runs,
        "mixing": [
            {
                "concurrency": 9,
                "requests": 9,
                "languages": 8,
                "identical": {**timing, "rtfx": 20.0},
                "mixed": {**timing, "rtfx": rtfx},
            }
            for rtfx in (8.0, 10.0, 12.0)
        ],
        "footprints": {"engine": {"resident": 1, "host_peak": 3 << 20, "device_peak": 0}},
        "facts": {"engine": {"chose": "2 lanes", "languages": 64, "bytes a language": 1 << 20}},
        "unable": {"peft": "it is <not> installed"},
    }
    seating = {
        "what": "made",
        "parameter_bytes": [100 * n for n in range(1, 17)],
        "bank_bytes": [800] * 8 + [1_600] * 8,
        "host_bytes": [100 * n for n in range(1, 17)],
        "seconds": [0.001] * 19 + [0.1],
        "unprepared_s": [0.002] * 20,
    }
    http = {
        "languages": 13,
        "mixing": [
            {"concurrency": 8, "requests": 64, "languages": 13, "identical": timing, "mixed": {**timing, "rtfx": 49.0}}
        ],
        "beside": [{"idle_p95_s": 0.1, "beside_p95_s": 0.3}, {"idle_p95_s": 0.1, "beside_p95_s": 0.5}],
        "published_s": [0.2, 0.3],
    }
    shares = {"front end": 0.4, "linears of the layers": 0.6}
    machine = {"cpu": "a CPU", "cores": 2, "memory_bytes": 8 << 30, "device": "cpu", "note": "Made up."}
    return {
        "machine": {**machine, "python": "3", "torch": "2", "transformers": "5"},
        "comparisons": {"wav2vec2-base": found},
        "seating": [seating],
        "http": http,
        "profile": [{"backbone": "small", "rows": 8, "seconds": 5.0, "wall_s": 0.5, "shares": shares}],
        "failed": {"xls-r-300m": "no room"},
    }


def named(results: dict[str, Any], *words: str) -> Target:
    (found,) = [target for target in targets(results) if all(word in target.name for word in words)]
    return found


def test_ratios_are_of_rounds_that_both_have():
    assert ratios({0: 3.0, 1: 8.0, 3: 1.0}, {1: 4.0, 0: 3.0, 2: 7.0}) == (1.0, 2.0)


def test_ratios_between_systems_take_the_median_over_rounds(results):
    assert named(results, "wav2vec2-base", "bare").values == (1.0, 0.8, 1.0)
    assert named(results, "wav2vec2-base", "bare").met
    mixed = named(results, "wav2vec2-base", "mixed / one")
    assert mixed.measured == 0.5
    assert not mixed.met
    assert named(results, "wav2vec2-base", "1-15 s", "load_adapter").values == (2.0, 2.4)
    assert named(results, "wav2vec2-base", "1-2 s", "load_adapter").measured == 1.2
    assert named(results, "wav2vec2-base", "1-2 s", "load_adapter").met


def test_what_was_not_measured_is_neither_met_nor_missed(results):
    missing = named(results, "shipped", "1-2 s")
    assert (missing.measured, missing.met) == (None, None)
    assert f"| {missing.name} | >= 1.2 | | | not measured |" in target_table(targets(results))


def test_memory_is_judged_with_all_seated_and_its_spread_has_the_worst(results):
    found = named(results, "made", "bytes")
    assert found.measured == 1.0
    assert found.met
    assert max(found.values) == pytest.approx(1_600 / 900)


def test_seats_are_judged_by_their_95th_percentile(results):
    found = named(results, "made", "seat")
    assert found.measured == pytest.approx(1.0)
    results["seating"][0]["seconds"][0] = 0.1
    assert named(results, "made", "seat").measured == pytest.approx(100.0)
    assert not named(results, "made", "seat").met


def test_a_clip_beside_an_hour(results):
    found = named(results, "over HTTP", "1 h file")
    assert found.values == pytest.approx((3.0, 5.0))
    assert found.measured == pytest.approx(4.0)


def test_a_gpu_has_goals_of_its_own(results):
    results["machine"]["device"] = "a GPU"
    assert named(results, "wav2vec2-base", "1-15 s", "load_adapter").goal == 10
    assert named(results, "made", "seat").goal == 5
    assert named(results, "over HTTP", "1 h file").goal == 2.5


def test_the_table_says_met_or_missed():
    table = target_table([Target("a", 0.9, (0.8, 1.0, 1.1)), Target("b", 20, (30.0,), most=True, unit="ms")])
    assert table.splitlines()[2:] == [
        "| a | >= 0.9 | 1.00 | 0.80 to 1.10 | met |",
        "| b | <= 20 ms | 30.00 ms | 30.00 to 30.00 | **missed** |",
    ]


def test_the_page_has_every_part(results):
    told = page(results, "plot.svg")
    for piece in (
        "engine / bare backbone",
        "](plot.svg)",
        "uniform, 9 clients, 9 requests, 1-15 s | 1.00 (0.80 to 1.00, 3) | 2.20 (2.00 to 2.40, 2) |",
        "| 9 of 64 languages, uniform, 9 clients, 9 requests, 1-2 s |  | 1.20 (once) |",
        "| 9 of 64 languages, uniform, 9 clients, 9 requests, 1-15 s | 10.0 | 10.0 | 5.0 |",
        "| engine | 64 | 3 MiB |  | 1.00 MiB | 2 lanes |",
        "drawn from 64 languages (8 of them, 9 clients), mixed / one",
        "clips of 1-15 s, 9 clients: engine / load_adapter a request",
        "- peft: it is <not> installed",
        "| made | 16 | 0.00 | 1.00 | 1.78 | 1.00 | 1.0 / 1.0 / 100.0 |",
        "| 8 | 64 | 13 | 0.98 (once) | 50.0 | 49.0 | 0.100 / 0.200 |",
        "100 ms alone, 400 ms beside an hour",
        "first answer by it: 250 ms (200 to 300, 2 times)",
        "| front end | 40.0 % |",
        "a CPU, 2 cores, 8 GiB of memory; device: cpu",
        "- xls-r-300m could not be measured: no room",
    ):
        assert piece in told, piece


def test_a_page_of_nothing_but_a_machine(results):
    told = page({"machine": results["machine"], "comparisons": {}}, "plot.svg")
    assert "## Targets" in told
    assert "## Ratios" not in told


def test_the_plot_has_a_row_a_cell_and_a_dot_a_system(results):
    root = ElementTree.fromstring(draw(results["comparisons"]))
    space = "{http://www.w3.org/2000/svg}"
    rows = [t for t in root.iter(f"{space}text") if (t.text or "").startswith("wav2vec2-base: ")]
    dots = [circle for circle in root.iter(f"{space}circle") if circle.get("r") == "4"]
    assert len(rows) == 2
    assert len(dots) == 3 + 2
    faster, slower = (float(dots[n].attrib["cx"]) for n in (0, 2))
    assert faster > slower
    ElementTree.fromstring(draw({}))
