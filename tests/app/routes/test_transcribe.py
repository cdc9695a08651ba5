from __future__ import annotations

import select
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.live import Live, answer, wait_until
from tests.app.recordings import KINDS, long_silence, recording, tone, video, wav

NOISE = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)


def fault(response: httpx.Response) -> dict[str, Any]:
    assert response.json().keys() == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["x-request-id"]
    return error


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


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty_audio"),
        (b"This is a text that is called talk.wav.\n" * 20, 415, "not_audio"),
        (wav(tone(1.0))[:44], 400, "broken_audio"),
        (video(sound=False), 415, "no_audio_track"),
        (wav(tone(1.0)[:399]), 400, "audio_too_short"),
        (wav(np.full(16_000, np.nan, np.float32), subtype="FLOAT"), 400, "broken_audio"),
        (wav(np.append(tone(40.0), np.float32(np.nan)), subtype="FLOAT"), 400, "broken_audio"),
        (recording("m4a")[:2_000], 400, "broken_audio"),
        (long_silence(0.5, length_stated=True), 413, "audio_too_long"),
        (long_silence(0.5, length_stated=False), 413, "audio_too_long"),
        (bytes(5_000_000), 413, "audio_too_large"),
    ],
)
@pytest.mark.parametrize("in_form", [True, False])
def test_bad_audio(live: Live, data: bytes, status: int, code: str, in_form: bool) -> None:
    response = live.transcribe(data) if in_form else live.http.post("/transcribe?lang=es", content=data)
    assert (response.status_code, fault(response)["code"]) == (status, code)
    assert fault(response)["param"] == "file"


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


@pytest.mark.parametrize(
    ("query", "status", "code", "param", "named"),
    [
        ("", 400, "language_required", "lang", "es, fr, ru"),
        ("lang=", 400, "language_required", "lang", "es, fr, ru"),
        ("lang=auto", 400, "language_required", "lang", "es, fr, ru"),
        ("lang=lb", 404, "unknown_language", "lang", "es, fr, ru"),
        ("lang=nonsense", 404, "unknown_language", "lang", "es, fr, ru"),
        ("lang=es%00", 404, "unknown_language", "lang", "es, fr, ru"),
        ("lang=" + "e" * 5000, 404, "unknown_language", "lang", "es, fr, ru"),
        ("adapter=de", 404, "unknown_adapter", "adapter", "es, fr, ru"),
        ("adapter=../es", 404, "unknown_adapter", "adapter", "es, fr, ru"),
        ("adapter=fr&lang=ru", 404, "unknown_adapter", "adapter", "'fr'"),
        ("lang=es,fr,ru,es,fr", 422, "bad_parameter", "lang", "at most 4 languages"),
        ("lang=es,lb", 404, "unknown_language", "lang", "es, fr, ru"),
        ("lang=es,fr&adapter=es", 422, "bad_parameter", "adapter", "not both"),
        ("lang=es&lang=fr", 422, "bad_parameter", "lang", "twice"),
        ("lang=es&format=docx", 422, "bad_parameter", "format", "'json', 'verbose_json', 'text', 'srt' or 'vtt'"),
        ("lang=es&words=perhaps", 422, "bad_parameter", "words", "perhaps"),
        ("langauge=es", 422, "bad_parameter", "langauge", "there are lang, adapter, format, words"),
    ],
)
def test_bad_questions(live: Live, query: str, status: int, code: str, param: str, named: str) -> None:
    response = live.transcribe(recording("wav-16k"), query)
    error = fault(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert named in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("data", "files", "status", "code"),
    [
        ({"lang": "es", "colour": "red"}, {"file": b"x"}, 422, "bad_parameter"),
        ({"lang": "es"}, {"audio": b"x"}, 422, "bad_parameter"),
        ({"lang": "es"}, {"file": b"x", "other": b"y"}, 400, "bad_body"),
        ({"lang": "es", "words": "w" * 100_000}, {"file": b"x"}, 400, "bad_body"),
        ({f"field{n}": "x" for n in range(60)}, {"file": b"x"}, 400, "bad_body"),
    ],
)
def test_bad_forms(live: Live, data: dict[str, str], files: dict[str, bytes], status: int, code: str) -> None:
    response = live.http.post("/transcribe", data=data, files=files)
    assert (response.status_code, fault(response)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("multipart/form-data", b"x"), ("multipart/form-data; boundary=b", b"nothing of the kind"),
     ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n'),
     ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'),
     ("multipart/form-data; boundary=b", b"")],
)  # fmt: skip
def test_broken_forms(live: Live, content_type: str, body: bytes) -> None:
    response = live.http.post("/transcribe?lang=es", content=body, headers={"Content-Type": content_type})
    assert response.status_code in (400, 422)
    assert fault(response)["code"] in ("bad_body", "bad_parameter")


def test_a_body_over_the_limit_is_refused_while_it_is_sent(live: Live) -> None:
    connection = live.connect("POST /transcribe?lang=es HTTP/1.1\nHost: x\nTransfer-Encoding: chunked")
    chunk = b"80000\r\n" + bytes(0x80000) + b"\r\n"
    sent = 0
    with connection:
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(chunk)
            sent += 0x80000
            assert sent < 20_000_000
        status, content = answer(connection)
    assert (status, content["error"]["code"]) == (413, "audio_too_large")


@pytest.mark.parametrize("content_type", ["audio/wav", "multipart/form-data; boundary=b"])
def test_a_stated_length_over_the_limit_is_refused_before_it_is_sent(live: Live, content_type: str) -> None:
    head = f"POST /transcribe?lang=es HTTP/1.1\nHost: x\nContent-Type: {content_type}\nContent-Length: 5000000"
    with live.connect(head) as connection:
        assert answer(connection)[0] == 413


def test_an_unknown_language_is_refused_before_the_body_is_sent(live: Live) -> None:
    with live.connect("POST /transcribe?lang=xx HTTP/1.1\nHost: x\nContent-Length: 1000") as connection:
        assert answer(connection)[0] == 404


def test_an_upload_that_stalls(live: Live) -> None:
    with live.connect("POST /transcribe?lang=es HTTP/1.1\nHost: x\nContent-Length: 1000") as connection:
        status, content = answer(connection)
    assert (status, content["error"]["code"]) == (408, "upload_stalled")
    wait_until(lambda: live.metric("tongues_permits_taken") == 0)


def test_no_permit_left(live: Live) -> None:
    head = "POST /transcribe?lang=es HTTP/1.1\nHost: x\nContent-Length: 1000"
    waiting = [live.connect(head) for _ in range(4)]
    try:
        wait_until(lambda: live.metric("tongues_permits_taken") == 4)
        response = live.transcribe(recording("wav-16k"))
        assert (response.status_code, fault(response)["code"]) == (429, "queue_full")
        assert fault(response)["type"] == "rate_limit_error"
        assert int(response.headers["retry-after"]) >= 1
        assert live.http.get("/health/ready").status_code == 200
    finally:
        for connection in waiting:
            connection.close()
    wait_until(lambda: live.metric("tongues_permits_taken") == 0)
    assert live.transcribe(recording("wav-16k")).status_code == 200


def test_a_client_that_hangs_up_frees_its_permit(live: Live) -> None:
    data = wav(np.tile(tone(60.0), 10), subtype="PCM_U8", rate=8_000)[:3_900_000]
    head = f"POST /transcribe?lang=es HTTP/1.1\nHost: x\nContent-Length: {len(data)}"
    connection = live.connect(head)
    connection.sendall(data)
    wait_until(lambda: live.metric("tongues_queue_windows") > 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_until(lambda: live.metric("tongues_permits_taken") == 0)
    assert live.metric("tongues_queue_windows") == 0


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
