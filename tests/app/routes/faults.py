"""What every refusal looks like."""

from __future__ import annotations

from typing import Any

import httpx


def fault(response: httpx.Response) -> dict[str, Any]:
    assert response.json().keys() == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["x-request-id"]
    return error
