"""Beam searches over HTTP: asked for by a request, with what its adapter brings, beside others that did not ask."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from adapters.config import BackboneSize
from adapters.language_model import LanguageModel, estimate
from adapters.store import AdapterStore
from tests.app.live import Live, serving
from tests.app.recordings import recording
from tests.app.routes.faults import fault
from tests.app.routes.publisher import files_of, open_to_publishers, put
from tests.builders import miscounted

CLIP = recording("wav-16k")


@pytest.fixture(scope="module")
def spoken(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service whose adapters are less sure of what they hear, so that words can make a difference."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("decoding") / "model")
    for name in ("es", "fr"):
        publish_unsure(folder, model_folder, name)
    with serving(open_to_publishers(folder)) as server:
        yield server


def publish_unsure(to: Path, model_folder: Path, name: str, model: LanguageModel | None = None) -> None:
    """An adapter of the model whose logits are a hundredth, and a language model with it."""
    store = AdapterStore(model_folder / "adapters")
    record = store.record(name)
    loaded = store.load(record, size=BackboneSize(48, 4, 96))
    tensors = {**loaded.tensors, "head.weight": loaded.tensors["head.weight"] / 100}
    AdapterStore(to / "adapters").publish(
        name,
        tensors,
        loaded.vocab,
        language=name,
        config=record.config,
        size=BackboneSize(48, 4, 96),
        fingerprint=record.fingerprint,
        default=True,
        language_model=model,
    )


def said(live: Live, query: str) -> str:
    text: str = live.transcribe(CLIP, query).raise_for_status().json()["text"]
    return text


def test_a_beam_search_is_asked_for_by_the_request(live: Live) -> None:
    greedy, told = said(live, "lang=es"), live.transcribe(CLIP, "lang=es&decode=beam&words=true").json()
    assert said(live, "lang=es&decode=greedy") == greedy
    assert told["text"].split() == [word["text"] for word in told["words"]]
    starts = [word["start_s"] for word in told["words"]]
    assert starts == sorted(starts)
    assert all(0 <= w["start_s"] <= w["end_s"] <= 2.01 and 0 < w["confidence"] <= 1 for w in told["words"])


def test_it_changes_nothing_for_its_neighbours(live: Live) -> None:
    queries = ["lang=es&decode=beam", "lang=fr", "lang=ru&decode=beam", "lang=es"]
    alone = [said(live, query) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda query: said(live, query), queries * 6))
    assert together == alone * 6


def test_hot_words_are_listened_for(spoken: Live) -> None:
    plain = said(spoken, "lang=es&decode=beam")
    assert "niña" not in plain.split()
    assert "niña" in said(spoken, "lang=es&hotwords=NIÑA").split()
    assert said(spoken, "lang=es&decode=beam") == plain, "and the next request has none"


def test_one_of_several_languages_and_long_recordings(live: Live) -> None:
    long = recording("wav-16k", 45.0)
    told = live.transcribe(long, "lang=es,fr&decode=beam&words=true").raise_for_status().json()
    assert told["words"][-1]["end_s"] > 40
    assert len(told["languages"]) == 2


def test_a_new_version_brings_its_language_model(spoken: Live, model_folder: Path, tmp_path: Path) -> None:
    before = said(spoken, "lang=fr&decode=beam")
    model = LanguageModel(estimate(["le petit bateau", "la maison", *["a b"] * 3]), alpha=2.0, beta=0.0)
    publish_unsure(tmp_path, model_folder, "fr", model)
    files = files_of(tmp_path, "fr")
    missing = put(spoken, "fr", {name: content for name, content in files.items() if name != "language_model"})
    assert (missing.status_code, fault(missing)["code"]) == (422, "bad_adapter")
    assert "no language_model came" in fault(missing)["message"]
    response = put(spoken, "fr", files)
    assert response.status_code == 201
    assert response.json()["language_model"] is True
    after = said(spoken, "lang=fr&decode=beam")
    assert after != before
    assert {"le", "petit", "bateau", "la", "maison", "a", "b"} & set(after.split())
    assert spoken.http.get("/adapters/es").json()["language_model"] is False


BROKEN = LanguageModel(miscounted(estimate(["le petit bateau"])))


def test_a_language_model_that_cannot_be_used_is_not_published(
    spoken: Live, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = spoken.http.get("/adapters/fr").json()["version"]
    publish_unsure(tmp_path, model_folder, "fr", BROKEN)
    refused = put(spoken, "fr", files_of(tmp_path, "fr"))
    assert (refused.status_code, fault(refused)["code"]) == (422, "bad_adapter")
    assert "not a language model that KenLM reads" in fault(refused)["message"]
    assert spoken.http.get("/adapters/fr").json()["version"] == before
    monkeypatch.setitem(sys.modules, "ctc_beam_decoder", None)
    assert put(spoken, "fr", files_of(tmp_path, "fr")).status_code == 201, "nobody here can search with it"
    monkeypatch.undo()
    broken = spoken.transcribe(CLIP, "lang=fr&decode=beam")
    assert (broken.status_code, fault(broken)["code"]) == (503, "adapter_unusable")
    assert said(spoken, "lang=fr")


def test_openai_clients_may_ask_as_well(live: Live) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{live.port}/v1", api_key="any", max_retries=0)

    def ask(**extra: str) -> str:
        return client.audio.transcriptions.create(model="es", file=("a.wav", CLIP), extra_body=extra).text

    assert ask(decode="beam") == said(live, "lang=es&decode=beam")
    assert ask() == said(live, "lang=es")
    with pytest.raises(openai.UnprocessableEntityError, match="hot word 'x1' has '1'"):
        ask(hotwords="x1")


MANY = [one + other for one in "abcdefghijk" for other in "abcdefghij"]


@pytest.mark.parametrize(
    ("query", "status", "code", "param", "told"),
    [
        ("decode=best", 422, "bad_parameter", "decode", "'greedy' or 'beam'"),
        ("decode=greedy&hotwords=ana", 400, "bad_combination", "hotwords", "decode=beam"),
        ("hotwords=ana1", 422, "bad_hot_word", "hotwords", "'ana1' has '1'"),
        ("hotwords=" + ",".join(MANY), 422, "bad_parameter", "hotwords", "at most 100 hot words, not 110"),
        ("hotwords=" + "a" * 5_001, 422, "bad_parameter", "hotwords", "5000"),
    ],
)
def test_what_cannot_be_asked(live: Live, query: str, status: int, code: str, param: str, told: str) -> None:
    response = live.transcribe(CLIP, f"lang=es&{query}")
    error = fault(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert told in error["message"]


def test_as_many_hot_words_as_are_allowed(live: Live) -> None:
    assert said(live, "lang=es&hotwords=" + ",".join([*MANY[:100], *MANY[:100]])), "each counts once"
    form = {"language": "es", "hotwords": MANY[:100]}  # a field for each, as clients send lists
    answer = live.http.post("/v1/audio/transcriptions", data={"model": "auto", **form}, files={"file": ("clip", CLIP)})
    assert answer.status_code == 200, answer.text
