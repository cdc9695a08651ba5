"""Ways to a backbone: what is compared, that it goes on where it stopped, and what the table says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from adapters.training import routes as module
from adapters.training.pretrain_config import PretrainConfig
from adapters.training.processes import apart
from adapters.training.results import run_trial
from adapters.training.routes import RATES, Made, Way, run_ways, table, ways
from tests.adapters.training.test_methods import SHORT
from tests.adapters.training.tones import SHAPE


def test_every_route_has_the_same_updates_with_ctc_and_without():
    found = ways(300, 600, 24.0)
    assert {sum(way.updates) for way in found} == {900}
    assert {way.route for way in found} == {"units", "contrastive", "phones", None}
    assert {way.updates for way in found if way.route} == {(300, 600), (900, 0)}
    assert len({way.name for way in found}) == len(found) == 2 * 8
    assert [way.lr for way in found] == 8 * [RATES[0]] + 8 * [RATES[1]]  # stopped early, it has something of each
    with_sounds = [way for way in found if way.config(PretrainConfig()).halfway == "sounds"]
    assert [(way.route, way.updates) for way in with_sounds] == 2 * [("units", (300, 600))]
    assert ways(300, 600, 24.0, sounds=False) == [way for way in found if way not in with_sounds]
    config = found[0].config(PretrainConfig())
    assert [(name, stage.steps, stage.lr) for name, stage in config.stages.items()] == [
        ("units", 300, found[0].lr),
        ("ctc", 600, found[0].lr),
    ]


def test_what_was_made_is_not_made_again(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(
        module,
        "apart",
        lambda function, *given: (function if function is run_trial else partial(apart, function))(*given),
    )
    wanted = [Way("units", (2, 2), 8.0, 3e-3), Way(None, (0, 4), 8.0, 3e-3)]
    told: list[str] = []

    def stops(line):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    run = partial(
        run_ways,
        wanted,
        tones,
        None,
        tmp_path / "runs",
        notebook=tmp_path / "routes.jsonl",
        adapters=replace(SHORT, steps=2, layers=2),
        usual=PretrainConfig(shape=SHAPE, units=8),
        languages=("es",),
    )
    with pytest.raises(KeyboardInterrupt):
        run(announce=stops)
    told.clear()
    made = run(announce=told.append)
    assert [line.split()[-1] for line in told] == [wanted[1].name]
    assert [one.way for one in made] == [way.name for way in wanted]
    assert all(one.audio_s == 32 and one.seconds > 0 and one.cer.keys() == {"es"} for one in made)
    assert not list((tmp_path / "runs").iterdir()), "backbones are not kept"
    again = run(announce=told.append)
    assert again == made
    assert len(told) == 1
    more = run(announce=told.append, languages=("es", "fr"))
    assert [set(one.dev_cer) for one in more] == 2 * [{"es", "fr"}]
    assert len(told) == 3, "in other languages they are to be made"
    assert run() == made
    beside = run(notebook=tmp_path / "beside.jsonl", at_once=2)
    # Another process may add in another order, and what so few updates make of it is anybody's guess.
    assert [unmeasured(one) for one in beside] == [unmeasured(one) for one in made]
    assert all(one.seconds > 0 and one.cer.keys() == one.dev_cer.keys() == {"es"} for one in beside)


def unmeasured(made):
    return replace(made, seconds=0.0, dev_cer={}, cer={})


def test_the_table_takes_the_better_learning_rate():
    def made(route, updates, lr, cer, halfway="letters"):
        return Made(
            f"{route}{lr}",
            route,
            updates,
            lr,
            0,
            "d",
            9,
            7200.0,
            600.0,
            {"cs": cer, "fr": cer + 0.02},
            {"cs": 0.5, "fr": 0.7},
            halfway,
        )

    sounds = made("units", (3, 6), 1e-3, 0.7, "sounds")
    units = [made("units", (3, 6), 5e-4, 0.4), made("units", (3, 6), 1e-3, 0.3)]
    told = table([*units, made(None, (0, 9), 1e-3, 0.6), sounds])
    rows = told.splitlines()[2:]
    assert rows[0] == (
        "| masked units (HuBERT) | 3, 6 | 0.001 | 2.0 | 10 | 31.0 (cs 30.0, fr 32.0) | 60.0 (cs 50.0, fr 70.0) |"
    )
    assert rows[1].startswith("| nothing | 0, 9 |")
    assert rows[2].startswith("| masked units (HuBERT), sounds half way up | 3, 6 |")
    assert len(rows) == 3
