"""What publishers of the tests do: make versions, put them, and look at who answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from app.settings import Settings
from tests.app.live import Live
from tests.app.recordings import recording

KEY = "a key of sixteen letters or more"
BEARER = {"Authorization": f"Bearer {KEY}"}
Publish = Callable[..., str]


def open_to_publishers(folder: Path) -> Settings:
    """Settings of a service whose adapters come and go."""
    return Settings.read(models=folder, admin_key=KEY, watch_s=0.2, threads=1, lanes=1, max_adapter_bytes=400_000)


def files_of(store: Path, name: str) -> dict[str, Any]:
    """The form that publishes what lies in a store."""
    folder = store / "adapters" / name
    record = json.loads((folder / "adapter.json").read_text())
    parts = [name for name in ("weights", "vocab", "language_model") if name in record]
    files = {name: (folder / record[name]["file"]).read_bytes() for name in parts}
    return {"adapter.json": (folder / "adapter.json").read_bytes(), **files}


def put(live: Live, name: str, files: dict[str, Any], **headers: str) -> httpx.Response:
    return live.http.put(f"/adapters/{name}", files=files, headers={**BEARER, **headers})


def said(live: Live, language: str) -> tuple[str, str]:
    """Version and text of an answer."""
    told = live.transcribe(recording("wav-16k"), f"adapter={language}").json()
    return told["version"], told["text"]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]
