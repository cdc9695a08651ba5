from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.app.live import Live
from tests.app.recordings import recording
from tests.app.routes.faults import fault

CLIP = ("clip.wav", recording("wav-16k", 3.0))


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="unused", base_url=f"{live.http.base_url}/v1", max_retries=0) as client:
        yield client


def ask(live: Live, **fields: Any) -> httpx.Response:
    return live.http.post("/v1/audio/transcriptions", files={"file": CLIP}, data={"model": "es", **fields})


def test_json(live: Live, client: openai.OpenAI) -> None:
    told = client.audio.transcriptions.create(file=CLIP, model="es")
    assert told.text == live.transcribe(CLIP[1]).json()["text"]
    assert told.usage is not None
    assert (told.usage.type, told.usage.to_dict()["seconds"]) == ("duration", 3)
    assert told.to_dict()["adapter"] == "es"
    assert told.to_dict()["truncated"] is False


def test_the_language_decides_where_the_model_is_auto(client: openai.OpenAI) -> None:
    assert client.audio.transcriptions.create(file=CLIP, model="auto", language="ru").to_dict()["adapter"] == "ru"
    with pytest.raises(openai.BadRequestError, match="es, fr, ru") as raised:
        client.audio.transcriptions.create(file=CLIP, model="auto")
    assert (raised.value.param, raised.value.code) == ("language", "language_required")


def test_verbose_json(client: openai.OpenAI) -> None:
    told = client.audio.transcriptions.create(file=CLIP, model="fr", response_format="verbose_json")
    assert (told.language, told.duration) == ("french", 3.0)
    assert told.to_dict()["task"] == "transcribe"
    assert told.words is None
    assert told.segments
    for number, segment in enumerate(told.segments):
        assert segment.id == number
        assert 0 <= segment.start < segment.end <= 3
        assert segment.to_dict().keys() == {
            "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
            "no_speech_prob",
        }  # fmt: skip
    assert " ".join(segment.text for segment in told.segments) == told.text


@pytest.mark.parametrize(
    ("wanted", "has_words", "has_segments"),
    [(["word"], True, False), (["segment"], False, True), (["word", "segment"], True, True)],
)
def test_granularities(client: openai.OpenAI, wanted: list[Any], has_words: bool, has_segments: bool) -> None:
    told = client.audio.transcriptions.create(
        file=CLIP, model="es", response_format="verbose_json", timestamp_granularities=wanted
    )
    assert (told.words is not None, told.segments is not None) == (has_words, has_segments)
    if told.words is not None:
        assert " ".join(word.word for word in told.words) == told.text
        assert all(0 <= word.start < word.end <= 3 for word in told.words)


def test_granularities_without_brackets_and_empty_fields(live: Live) -> None:
    told = ask(live, response_format="verbose_json", timestamp_granularities="word", language="", prompt="", stream="")
    assert told.json().keys() >= {"words"}
    assert "segments" not in told.json()


def test_fields_that_are_not_known_are_passed_over(client: openai.OpenAI) -> None:
    assert client.audio.transcriptions.create(
        file=CLIP, model="es", prompt="Hola", temperature=0.2, extra_body={"chunking_strategy": "auto", "hotwords": "x"}
    ).text


@pytest.mark.parametrize(
    ("format", "content_type", "start"),
    [("text", "text/plain", ""), ("srt", "application/x-subrip", "1\n00:00:00,"), ("vtt", "text/vtt", "WEBVTT\n")],
)
def test_plain_formats(live: Live, client: openai.OpenAI, format: Any, content_type: str, start: str) -> None:
    told = client.audio.transcriptions.create(file=CLIP, model="es", response_format=format)
    assert str(told).startswith(start)
    assert ask(live, response_format=format).headers["content-type"] == f"{content_type}; charset=utf-8"


def test_what_breaks_off_is_told_beside_plain_text(live: Live) -> None:
    whole = ask(live, response_format="text")
    short = live.http.post(
        "/v1/audio/transcriptions",
        files={"file": ("clip.wav", CLIP[1][:50_000])},
        data={"model": "es", "response_format": "srt"},
    )
    assert (whole.headers["x-truncated"], short.headers["x-truncated"]) == ("false", "true")


def test_hot_words_may_be_a_list(live: Live, client: openai.OpenAI) -> None:
    """All of them count: a word in letters that the adapter lacks is refused wherever it stands."""
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.audio.transcriptions.create(file=CLIP, model="es", extra_body={"hotwords": ["猫", "a"]})
    assert (raised.value.param, raised.value.code) == ("hotwords", "bad_hot_word")
    assert fault(ask(live, hotwords=["猫", "a"]))["code"] == "bad_hot_word"
    assert client.audio.transcriptions.create(file=CLIP, model="es", extra_body={"hotwords": ["a", "e"]}).text


def test_the_language_is_told_as_the_contract_has_it(client: openai.OpenAI) -> None:
    for stream in (False, True):
        told: Any = client.audio.transcriptions.create(file=CLIP, model="es", stream=stream)
        told = list(told)[-1] if stream else told
        assert [language.code for language in told.languages] == ["es"]
        assert (told.usage is None) == stream, "that of a stream's end is of tokens, and there are none"


def test_possible_languages(live: Live, client: openai.OpenAI) -> None:
    told: Any = client.audio.transcriptions.create(file=CLIP, model="auto", languages=["fr"])
    assert (told.languages[0].code, told.adapter) == ("fr", "fr")
    both: Any = client.audio.transcriptions.create(file=CLIP, model="auto", languages=["es", "fr"])
    assert {one["language"] for one in both.candidates} == {"es", "fr"}
    assert both.languages[0].code == both.candidates[0]["language"]
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(file=CLIP, model="auto", languages=["de"])
    assert ask(live, model="auto", language="es", languages="fr").json()["adapter"] == "es"


def test_keywords_are_hot_words(client: openai.OpenAI) -> None:
    assert client.audio.transcriptions.create(file=CLIP, model="es", keywords=["a", "e"]).text
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.audio.transcriptions.create(file=CLIP, model="es", keywords=["a", "猫"])
    assert raised.value.code == "bad_hot_word"


def test_stream(client: openai.OpenAI) -> None:
    events = list(client.audio.transcriptions.create(file=CLIP, model="es", stream=True))
    assert [event.type for event in events].count("transcript.text.done") == 1
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == done.text
    assert done.text == client.audio.transcriptions.create(file=CLIP, model="es").text


def test_the_bytes_of_a_stream(live: Live) -> None:
    response = ask(live, stream="true")
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = response.text.split("\n\n")
    assert end == ""
    assert all(event.startswith("data: {") for event in events)
    assert json.loads(events[-1].removeprefix("data: "))["type"] == "transcript.text.done"


def test_logprobs(client: openai.OpenAI) -> None:
    told = client.audio.transcriptions.create(file=CLIP, model="es", include=["logprobs"])
    assert told.logprobs
    assert "".join(entry.token or "" for entry in told.logprobs) == told.text
    assert all(entry.logprob is not None and entry.logprob <= 0 for entry in told.logprobs)
    assert bytes(map(int, told.logprobs[0].bytes or [])).decode() == told.logprobs[0].token


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["auto", "es", "fr", "ru"]
    model = client.models.retrieve("fr")
    assert (model.id, model.object, model.owned_by) == ("fr", "model", "tongues")
    assert model.created > 1_600_000_000
    assert client.models.retrieve("auto").id == "auto"
    for name in ("de", "someone/de", "../es"):
        with pytest.raises(openai.NotFoundError) as raised:
            client.models.retrieve(name)
        assert (raised.value.param, raised.value.code) == ("model", "unknown_adapter")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "whisper-1"}, 404, "model"),
        ({"model": ""}, 422, "model"),
        ({"language": "xx", "model": "auto"}, 404, "language"),
        ({"language": "fr"}, 404, "model"),
        ({"response_format": "docx"}, 422, "response_format"),
        ({"temperature": "hot"}, 422, "temperature"),
        ({"stream": "perhaps"}, 422, "stream"),
        ({"response_format": "verbose_json", "timestamp_granularities[]": "syllable"}, 422, "timestamp_granularities"),
        ({"timestamp_granularities[]": "word"}, 400, "timestamp_granularities"),
        ({"include[]": "logprobs", "response_format": "text"}, 400, "include"),
        ({"stream": "true", "response_format": "srt"}, 400, "stream"),
    ],
)
def test_bad_questions(live: Live, fields: dict[str, str], status: int, param: str) -> None:
    response = ask(live, **fields)
    assert response.status_code == status
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param


def test_bad_audio_is_told_to_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.audio.transcriptions.create(file=("clip.wav", b""), model="es")
    assert raised.value.code == "empty_audio"
    with pytest.raises(openai.APIStatusError) as other:
        client.audio.transcriptions.create(file=("clip.wav", b"no audio at all"), model="es")
    assert other.value.status_code == 415


def test_a_body_that_is_no_form(live: Live) -> None:
    response = live.http.post("/v1/audio/transcriptions", json={"model": "es"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_body")
    no_model = live.http.post("/v1/audio/transcriptions", files={"file": CLIP})
    assert (no_model.status_code, no_model.json()["error"]["param"]) == (422, "model")
