"""What is refused, as early as it can be, and who goes away while the service is at it."""

from __future__ import annotations

import resource
import select
import socket
import struct

import numpy as np
import pytest

from tests.app.live import Live, answer, wait_until
from tests.app.recordings import long_silence, recording, tone, video, wav
from tests.app.routes.faults import fault


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


@pytest.mark.parametrize("in_form", [True, False])
def test_an_upload_that_cannot_be_kept(live: Live, in_form: bool) -> None:
    data = bytes(3_000_000)  # one that would not stay in memory
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
    try:
        response = live.transcribe(data) if in_form else live.http.post("/transcribe?lang=es", content=data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (response.status_code, fault(response)["code"]) == (507, "no_room")
    assert "retry-after" in response.headers
    assert "x-should-retry" not in response.headers


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
        ({f"field{n}": "x" for n in range(210)}, {"file": b"x"}, 400, "bad_body"),
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


@pytest.mark.parametrize("path", ["/transcribe?lang=es", "/v1/audio/transcriptions"])
def test_a_form_in_no_charset(live: Live, path: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    response = live.http.post(path, content=body, headers=headers)
    assert (response.status_code, fault(response)["code"]) == (400, "bad_body")
    assert "utf-8" in fault(response)["message"]


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
