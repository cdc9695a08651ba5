from __future__ import annotations

import inspect

import pytest

from adapters import errors as method
from app import errors
from app.errors import TABLE, error_response, kind_of
from tests.app.live import Live


def test_every_error_that_a_request_can_meet_has_its_place() -> None:
    raised = {cls for _, cls in inspect.getmembers(method, inspect.isclass) if issubclass(cls, method.TonguesError)}
    leaves = {cls for cls in raised if not cls.__subclasses__() and cls.__module__ == method.__name__}
    not_of_requests = {method.DataError, method.LanguageHeadError}  # the engine does without a head that fails to load
    assert {cls.__name__ for cls in leaves - not_of_requests if kind_of(cls.__new__(cls)).status == 500} == set()


def test_the_nearest_class_counts() -> None:
    assert kind_of(method.AdapterCorrupt("es", "gone")).code == "adapter_unusable"
    assert kind_of(method.NoAudioTrack("x")).code == "no_audio_track"
    assert kind_of(KeyError("x")).status == 500
    assert len({kind.code for kind in TABLE.values()} - {"client_gone"}) == len(TABLE) - 2


def test_hints_for_clients_that_retry() -> None:
    assert error_response(method.QueueFull("full", retry_after_s=2.2)).headers["retry-after"] == "3"
    assert error_response(method.QueueFull("full", retry_after_s=0.0)).headers["retry-after"] == "1"
    assert "x-should-retry" not in error_response(method.QueueFull("full")).headers
    assert error_response(method.AmbiguousLanguage("which")).headers["x-should-retry"] == "false"
    assert error_response(method.DeadlineExceeded("late")).status_code == 504


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "no_such_path"),
        ("GET", "/transcribe", 405, "method_not_allowed"),
        ("DELETE", "/health/live", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", 404, "no_such_path"),
        ("GET", "/%00%ff", 404, "no_such_path"),
    ],
)
def test_the_router_speaks_as_all_others_do(live: Live, method: str, path: str, status: int, code: str) -> None:
    response = live.http.request(method, path)
    assert response.status_code == status
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert response.json()["error"]["code"] == code
    assert response.headers["x-request-id"]
    assert (status != 405) or response.headers["allow"]


def test_what_is_possible_is_told(live: Live) -> None:
    refused = live.http.patch("/adapters/es")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")
    assert "PUT" in refused.json()["error"]["message"]
    assert live.http.get("/transcribe").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/metrics", "/adapters", "/adapters/es", "/v1/models"]
)
def test_monitors_may_ask_for_heads(live: Live, path: str) -> None:
    head, whole = live.http.head(path), live.http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_own_errors_are_of_the_same_tree() -> None:
    own = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert all(issubclass(cls, method.TonguesError) for cls in own if issubclass(cls, Exception))
