"""No language is named: the recording tells it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import soxr

from app.settings import Settings
from tests.app.live import Live, serving
from tests.app.recordings import recording, tone, wav
from tests.builders import add_language_head, make_model

EXAMPLES = Path(__file__).parents[3] / "examples"


@cache
def speech() -> dict[str, np.ndarray]:
    """Real speech of several languages, two seconds each, by language."""
    found = {}
    for path in sorted(EXAMPLES.glob("*.ogg")):
        samples, rate = soundfile.read(path, dtype="float32")
        found[path.stem] = soxr.resample(samples, rate, 16_000)[:32_000]
    return found


@pytest.fixture(scope="module")
def telling_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of random weights with a language head over es, fr and ru."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("telling") / "model")
    add_language_head(folder, list(speech().values()))
    return folder


@pytest.fixture(scope="module")
def telling(telling_folder: Path) -> Iterator[Live]:
    with serving(Settings.read(models=telling_folder, max_audio_s=700, threads=1)) as server:
        yield server


def clips() -> list[bytes]:
    return [wav(samples) for samples in speech().values()]


def checked(told: dict[str, Any], live: Live, data: bytes) -> str:
    """That the answer is what its language alone says, with ranked candidates; the language."""
    ranked = told["languages"]
    probabilities = [one["probability"] for one in ranked]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.9 < sum(probabilities) <= 1.0001
    assert all(one["score"] <= 0 for one in ranked)
    assert (told["language"], told["adapter"]) == (ranked[0]["language"], ranked[0]["adapter"])
    alone = live.transcribe(data, f"lang={told['language']}&words=true").json()
    assert "languages" not in alone
    assert [word["text"] for word in alone["words"]] == told["text"].split()
    assert alone["confidence"] == pytest.approx(told["confidence"], abs=1e-3)
    return str(told["language"])


@pytest.mark.parametrize("query", ["lang=auto", "lang=", "", "lang=AUTO"])
def test_the_answer_is_that_of_a_language_that_was_shortlisted(telling: Live, query: str) -> None:
    said = {checked(telling.transcribe(data, query).json(), telling, data) for data in clips()}
    assert len(said) > 1, "a head that always says the same proves nothing"


def test_named_languages_have_probabilities_too(telling: Live) -> None:
    told = telling.transcribe(clips()[2], "lang=ru,es").json()
    assert {one["language"] for one in told["languages"]} == {"ru", "es"}
    assert all(0 < one["probability"] < 1 for one in told["languages"])


def test_openai_clients_may_leave_the_language_out(telling: Live) -> None:
    client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{telling.port}/v1")
    file = ("clip.wav", clips()[3])
    told = client.audio.transcriptions.create(file=file, model="auto").to_dict()
    ours = telling.transcribe(file[1], "lang=auto").json()
    assert (told["text"], told["adapter"], told["candidates"]) == (ours["text"], ours["adapter"], ours["languages"])
    verbose = client.audio.transcriptions.create(file=file, model="auto", response_format="verbose_json")
    assert verbose.language in ("spanish", "french", "russian")
    assert verbose.to_dict()["languages"] == told["languages"]


def test_of_a_long_recording_the_first_windows_decide(telling: Live) -> None:
    data = wav(np.concatenate([np.zeros(32_000), *[tone(1.0 + 0.1 * (n % 7)) for n in range(40)]]))
    told = telling.transcribe(data, "lang=auto").json()
    assert telling.transcribe(data, f"lang={told['language']}").json()["text"] == told["text"]


def test_a_word_before_a_pause_does_not_decide() -> None:
    """Of another language here, so that whoever listens to it alone is wrong."""
    every = {path.stem: soundfile.read(path, dtype="float32")[0] for path in sorted(EXAMPLES.glob("*.ogg"))}
    with serving(Settings.read(models=EXAMPLES.parent / "models/small", threads=1)) as live:
        for language, word in zip(every, [*list(every.values())[1:], every["be"]], strict=True):
            both = np.concatenate([word[:11_200], np.zeros(16_000, np.float32), every[language]])
            assert live.transcribe(wav(both), "").json()["language"] == language


def test_silence_is_of_no_language_in_particular(telling: Live) -> None:
    told = telling.transcribe(wav(np.zeros(20 * 16_000)), "lang=auto").json()
    assert told["text"] == ""
    assert all(0.2 < one["probability"] < 0.45 for one in told["languages"])


def test_the_listing_says_which_languages_can_be_told(telling: Live, live: Live) -> None:
    assert all(adapter["auto"] for adapter in telling.http.get("/adapters").json()["adapters"])
    assert not any(adapter["auto"] for adapter in live.http.get("/adapters").json()["adapters"])


def test_fewer_seats_than_candidates_are_enough(telling_folder: Path, telling: Live) -> None:
    with serving(Settings.read(models=telling_folder, device_slots=1, threads=1)) as narrow:
        for data in clips():
            told = narrow.transcribe(data, "lang=auto").json()
            assert len(told["languages"]) == 1
            assert narrow.transcribe(data, f"lang={told['language']}").json()["text"] == told["text"]


def _remove(adapter: Path) -> None:
    shutil.rmtree(adapter)


def _spoil(adapter: Path) -> None:
    for weights in adapter.glob("weights-*"):
        weights.write_bytes(b"spoilt")


def _double(adapter: Path) -> None:
    """Two for one language, and neither is the default."""
    for number in range(2):
        copy = shutil.copytree(adapter, adapter.with_name(f"{adapter.name}-{number}"))
        record = json.loads((copy / "adapter.json").read_text())
        (copy / "adapter.json").write_text(json.dumps({**record, "name": copy.name, "default": False}))
    shutil.rmtree(adapter)


@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [(_remove, 404, "unknown_language"), (_spoil, 503, "adapter_unusable"), (_double, 409, "ambiguous_language")],
)
def test_where_the_likeliest_cannot_answer_no_neighbour_does(
    telling_folder: Path, tmp_path: Path, spoil: Callable[[Path], None], status: int, code: str
) -> None:
    """The likeliest of a clip is one language of the three; where another one cannot answer it is left out."""
    refused: Counter[bytes] = Counter()
    for language in ("es", "fr", "ru"):
        folder = shutil.copytree(telling_folder, tmp_path / language)
        spoil(folder / "adapters" / language)
        with serving(Settings.read(models=folder, threads=1, watch_s=0)) as live:
            for data in clips():
                response = live.transcribe(data, "lang=auto")
                if response.status_code == 200:
                    assert language not in {one["language"] for one in response.json()["languages"]}
                    continue
                refused[data] += 1
                error = response.json()["error"]
                assert (response.status_code, error["code"]) == (status, code)
                assert language in error["message"]
            telling = {one["name"]: one["auto"] for one in live.http.get("/adapters").json()["adapters"]}
            assert all(can == (name in ("es", "fr", "ru")) for name, can in telling.items())
    assert all(refused[data] == 1 for data in clips())


def test_an_adapter_below_the_head_is_heard_from_the_start(tmp_path: Path) -> None:
    """The head reads above layers that the adapters change: the trunk's output is of no use to them."""
    folder = make_model(tmp_path / "model")
    add_language_head(folder, list(speech().values()), layer=4)
    with serving(Settings.read(models=folder, threads=1)) as live:
        for data in clips()[:4]:
            checked(live.transcribe(data, "lang=auto").json(), live, data)


def test_a_head_of_another_backbone_is_not_asked(telling_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(telling_folder, tmp_path / "model")
    record = folder / "languages" / "languages.json"
    record.write_text(record.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with serving(Settings.read(models=folder, threads=1)) as live:
        refused = live.transcribe(recording("wav-16k"), "lang=auto")
        assert refused.status_code == 400
        assert "made for the backbone" in refused.json()["error"]["message"]
        assert "es, fr, ru" in refused.json()["error"]["message"]
        assert live.transcribe(recording("wav-16k"), "lang=es").status_code == 200
