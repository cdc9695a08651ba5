"""`tongues adapters` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.store import AdapterStore
from app.cli import app
from tests.adapters.places import in_memory
from tests.app.routes.publisher import files_of


def test_adapters_of_folders_and_addresses_are_told_apart(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = in_memory()
    record = AdapterStore(model_folder / "adapters").record("fr")
    with AdapterStore.at(address).location.writing():
        for file, content in zip(record.files.values(), list(files_of(model_folder, "fr").values())[1:], strict=True):
            AdapterStore.at(address).location.write("fr", file.name, content)
        AdapterStore.at(address).location.write("fr", "adapter.json", record.to_json().encode())
    monkeypatch.setenv("TONGUES_ADAPTERS", address)
    result = CliRunner().invoke(app, ["adapters", "--models", str(model_folder), "--json"])
    assert result.exit_code == 0, result.output
    told = {one["name"]: (one["state"], one["where"]) for one in json.loads(result.stdout)["adapters"]}
    assert told == {"es": ("stored", "disk"), "fr": ("remote", "remote"), "ru": ("stored", "disk")}


def test_an_address_that_cannot_be_is_told_in_one_line(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONGUES_ADAPTERS", "tea://pot")
    result = CliRunner().invoke(app, ["adapters", "--models", str(model_folder)])
    assert result.exit_code == 1
    assert "'tea' is no protocol of a store" in result.stderr
