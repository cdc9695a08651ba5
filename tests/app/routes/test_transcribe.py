from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.app.live import Live
from tests.app.recordings import KINDS, recording, tone, video, wav
from tests.app.routes.faults import fault

NOISE = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_any_recording(live: Live, kind: str) -> None:
    response = live.transcribe(recording(kind))
    assert response.status_code == 200
    told = response.json()
    assert told.keys() == {
        "text", "language", "adapter", "version", "duration_s", "confidence", "truncated", "request_id",
    }  # fmt: skip
    assert told["text"]
    assert (told["language"], told["adapter"], told["truncated"]) == ("es", "es", False)
    assert told["duration_s"] == pytest.approx(2.0, abs=0.1)
    assert told["request_id"] == response.headers["x-request-id"]


def test_the_sound_of_a_video(live: Live) -> None:
    assert live.transcribe(video(sound=True)).json()["text"]


def test_the_body_may_be_the_audio_itself(live: Live) -> None:
    data = recording("opus")
    in_form = live.transcribe(data, "lang=fr").json()
    for content_type in ("audio/ogg", "application/x-www-form-urlencoded", ""):
        told = live.http.post("/transcribe?lang=fr", content=data, headers={"Content-Type": content_type}).json()
        assert told["text"] == in_form["text"]
    assert live.http.post("/transcribe?lang=fr", content=iter([data[:99], data[99:]])).json()["text"] == in_form["text"]


def test_parameters_may_stand_in_the_form(live: Live) -> None:
    files = {"file": recording("flac")}
    told = live.http.post("/transcribe", files=files, data={"lang": "russian", "words": "true"}).json()
    assert told["adapter"] == "ru"
    assert told["words"]
    assert live.http.post("/transcribe?lang=fr", files=files, data={"lang": "fr"}).json()["adapter"] == "fr"
    twice = live.http.post("/transcribe?lang=fr", files=files, data={"lang": "ru"})
    assert (twice.status_code, fault(twice)["param"]) == (422, "lang")


@pytest.mark.parametrize(
    ("query", "adapter"),
    [("lang=es", "es"), ("lang=spa", "es"), ("lang=es-MX", "es"), ("lang=Spanish", "es"), ("adapter=ru", "ru"),
     ("adapter=ru&lang=ru-RU", "ru"), ("lang=%20fr%20", "fr"), ("adapter=fr&lang=auto", "fr")],
)  # fmt: skip
def test_which_adapter(live: Live, query: str, adapter: str) -> None:
    assert live.transcribe(recording("wav-16k"), query).json()["adapter"] == adapter


@pytest.mark.parametrize(
    ("format", "content_type", "start"),
    [("text", "text/plain; charset=utf-8", ""), ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:0"),
     ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00:0")],
)  # fmt: skip
def test_formats(live: Live, format: str, content_type: str, start: str) -> None:
    response = live.transcribe(recording("wav-16k"), f"lang=es&format={format}")
    assert response.headers["content-type"] == content_type
    assert response.headers["content-language"] == "es"
    assert response.headers["x-truncated"] == "false"
    assert response.text.startswith(start)
    assert response.text.endswith("\n")


def test_words_and_segments(live: Live) -> None:
    data = recording("wav-16k")
    told = live.transcribe(data, "lang=es&format=verbose_json").json()
    assert told["segments"]
    assert told["words"] == live.transcribe(data, "lang=es&words=true").json()["words"]
    assert " ".join(word["text"] for word in told["words"]) == told["text"]
    for word in told["words"]:
        assert 0 <= word["start_s"] < word["end_s"] <= told["duration_s"]
        assert 0 < word["confidence"] <= 1


@pytest.mark.parametrize("samples", [np.zeros(32_000, np.float32), 1e-4 * NOISE, tone(1.0)[:800] * 0])
def test_silence_and_faint_noise_say_nothing(live: Live, samples: np.ndarray) -> None:
    response = live.transcribe(wav(samples, subtype="FLOAT"))
    assert response.status_code == 200
    assert (response.json()["text"], response.json()["confidence"]) == ("", None)


def test_a_twentieth_of_a_second_is_enough(live: Live) -> None:
    response = live.transcribe(wav(tone(1.0)[:800]))
    assert response.status_code == 200
    assert (response.json()["duration_s"], response.json()["text"]) == (0.05, "")


def test_what_breaks_off_gives_the_words_up_to_there(live: Live) -> None:
    data = recording("opus", 6.0)
    response = live.transcribe(data[: len(data) // 2])
    assert response.status_code == 200
    assert response.json()["truncated"] is True
    assert response.json()["text"]
    assert 1.0 < response.json()["duration_s"] < 4.0
    assert live.transcribe(data[: len(data) // 2], "lang=es&format=srt").headers["x-truncated"] == "true"


@pytest.mark.parametrize("query", ["lang=es,fr,ru", "lang=ru, Spanish ,fra"])
def test_of_several_languages_the_likeliest_answers(live: Live, query: str) -> None:
    """As each of them does alone, with their scores in order."""
    told = live.transcribe(recording("wav-16k"), f"{query}&words=true").json()
    ranked = told["languages"]
    assert {one["language"] for one in ranked} == {"es", "fr", "ru"}
    assert [one["score"] for one in ranked] == sorted((one["score"] for one in ranked), reverse=True)
    assert all(one["score"] < 0 for one in ranked)
    assert (told["language"], told["adapter"]) == (ranked[0]["language"], ranked[0]["adapter"])
    alone = live.transcribe(recording("wav-16k"), f"lang={told['language']}&words=true").json()
    assert "languages" not in alone
    assert (told["text"], told["words"]) == (alone["text"], alone["words"])


def test_of_a_long_recording_the_first_windows_decide(live: Live) -> None:
    samples = np.concatenate([tone(1.0 + 0.1 * (n % 7)) for n in range(40)])
    told = live.transcribe(wav(samples), "lang=fr,ru").json()
    alone = live.transcribe(wav(samples), f"lang={told['language']}").json()
    assert told["duration_s"] == pytest.approx(samples.size / 16_000, abs=0.01)
    assert told["text"] == alone["text"]


def test_one_request_id_for_two_requests_at_once(live: Live) -> None:
    data, headers = recording("flac", 20.0), {"X-Request-Id": "mine-1"}
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: live.transcribe(data, headers=headers), range(3)))
    assert {response.status_code for response in answers} == {200}
    assert len({response.json()["text"] for response in answers}) == 1
    assert {response.headers["x-request-id"] for response in answers} == {"mine-1"}


@pytest.mark.parametrize("insane", ["a b", "x" * 200, "<script>", "ü", "", "a~b"])
def test_only_a_sane_request_id_is_taken_over(live: Live, insane: str) -> None:
    given = live.http.get("/health/live", headers=[(b"X-Request-Id", insane.encode())]).headers["x-request-id"]
    assert len(given) == 32
    assert given != insane


def test_languages_side_by_side(live: Live) -> None:
    data = recording("wav-16k", 3.0)
    alone = {lang: live.transcribe(data, f"lang={lang}").json()["text"] for lang in ("es", "fr", "ru")}
    assert len(set(alone.values())) == 3
    barrier = threading.Barrier(3)

    def ask(lang: str) -> str:
        barrier.wait()
        return str(live.transcribe(data, f"lang={lang}").json()["text"])

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            assert dict(zip(alone, pool.map(ask, alone), strict=True)) == alone
