"""The service over a checkpoint out of a hub, whose languages come when they are asked for."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from app.settings import Settings
from tests.app.live import Live, serving, wait_until
from tests.hub import Hub
from tests.mms import LANGUAGES, WIDTH, make_mms

HIDDEN = 48
SPEECH = (Path(__file__).parents[3] / "examples/fr.ogg").read_bytes()


@pytest.fixture
def repo(hub: Hub, tmp_path: Path) -> str:
    make_mms(tmp_path / "repo")
    name = f"meta/{tmp_path.name}"
    hub.repos[name] = tmp_path / "repo"
    return name


@pytest.fixture
def live(hub: Hub, repo: str, tmp_path: Path) -> Iterator[Live]:
    settings = Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)
    with serving(settings) as server:
        yield server


def adapters(live: Live) -> dict[str, dict]:
    return {told["name"]: told for told in live.http.get("/adapters").json()["adapters"]}


def test_languages_are_fetched_when_they_are_asked_for(hub, repo, live):
    listed = adapters(live)
    assert set(listed) == set(LANGUAGES)
    assert live.http.get("/health/ready").json()["backbone"] == f"{repo}@{hub.commit(repo)}"
    assert (listed["fra"]["state"], listed["fra"]["where"]) == ("remote", "remote")
    assert (listed["fra"]["language"], listed["fra"]["verified"]) == ("fr", True)
    answer = live.transcribe(SPEECH, "lang=fr")
    assert answer.status_code == 200
    assert (answer.json()["adapter"], answer.json()["language"]) == ("fra", "fr")
    assert adapters(live)["fra"]["where"] == "device"
    assert hub.asked["adapter.fra.safetensors"] == 1
    assert live.transcribe(SPEECH, "lang=fra").json()["text"] == answer.json()["text"]
    assert hub.asked["adapter.fra.safetensors"] == 1


def test_scripts_are_named_and_never_guessed(live):
    refused = live.transcribe(SPEECH, "lang=ug")
    assert refused.status_code == 409
    assert "uig-script_arabic, uig-script_cyrillic" in refused.json()["error"]["message"]
    for query in ("lang=ug-Cyrl", "lang=uig-script_cyrillic", "adapter=uig-script_cyrillic"):
        assert live.transcribe(SPEECH, query).json()["adapter"] == "uig-script_cyrillic"


def test_no_language_can_be_told(live):
    refused = live.transcribe(SPEECH, "lang=auto")
    assert refused.status_code == 400
    assert "change every layer" in refused.json()["error"]["message"]


def test_others_are_served_while_one_is_slow_to_come(hub, live):
    assert live.transcribe(SPEECH, "lang=de").status_code == 200
    hub.faults["adapter.fra.safetensors"], hub.slow_s = "slow", 6.0
    answers: list[int] = []
    waiting = threading.Thread(
        target=lambda: answers.append(live.transcribe(SPEECH, "lang=fr").status_code), daemon=True
    )
    waiting.start()
    wait_until(lambda: hub.asked["adapter.fra.safetensors"])
    assert adapters(live)["fra"]["state"] == "loading"
    began = time.monotonic()
    assert live.transcribe(SPEECH, "lang=de").status_code == 200  # resident
    assert live.transcribe(SPEECH, "lang=ug-Arab").status_code == 200  # fetched meanwhile
    assert not answers, f"both were answered before the slow one, after {time.monotonic() - began:.1f} s"
    waiting.join()
    assert answers == [200]


@pytest.mark.parametrize("fault", ["unavailable", "truncated", "wrong", "missing"])
def test_a_language_that_cannot_be_had_fails_alone_and_comes_back(hub, live, fault):
    hub.faults["adapter.fra.safetensors"] = fault
    failed = live.transcribe(SPEECH, "lang=fr")
    assert failed.status_code >= 500
    assert "fra" in failed.json()["error"]["message"]
    told = adapters(live)["fra"]
    assert told["state"] == "failed"
    assert "adapter.fra.safetensors" in told["reason"]
    assert live.transcribe(SPEECH, "lang=de").status_code == 200
    hub.faults.clear()
    wait_until(lambda: live.transcribe(SPEECH, "lang=fr").status_code == 200, timeout_s=60)


def narrower(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of half the width, as a backbone with another ``adapter_attn_dim`` has them."""
    halved = {}
    for name, tensor in tensors.items():
        if "linear_1" in name:
            tensor = tensor[: WIDTH // 2]
        elif name.endswith("linear_2.weight"):
            tensor = tensor[:, : WIDTH // 2]
        halved[name] = tensor.contiguous()
    return halved


def of_a_wider_backbone(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([tensor, tensor], dim=-1) if tensor.shape[-1] == HIDDEN else tensor
        for name, tensor in tensors.items()
    }


def with_nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor * torch.nan if name == "lm_head.bias" else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (narrower, "is of shape"),
        (of_a_wider_backbone, "is of shape"),
        (with_nan, "holds NaN"),
        (None, "10737418240 bytes"),
    ],
    ids=["another width", "another backbone", "NaN", "10 GB"],
)
def test_an_adapter_that_does_not_fit_is_failed_with_its_reason(hub, repo, tmp_path, change, says):
    file = hub.repos[repo] / "adapter.fra.safetensors"
    if change is None:
        hub.faults[file.name] = "huge"
    else:
        save_file(change(load_file(file)), file, {"format": "pt"})
    with serving(Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)) as live:
        for _ in range(2):
            refused = live.transcribe(SPEECH, "adapter=fra")
            assert refused.status_code in (404, 503)
            assert says in refused.json()["error"]["message"]
        told = adapters(live)["fra"]
        assert told["state"] == "failed"
        assert says in told["reason"]
        assert live.transcribe(SPEECH, "lang=de").status_code == 200
    assert (hub.asked[file.name] == 0) == (change is None)


def test_what_the_client_of_the_hub_never_says_it_raises_is_the_adapters_failure(hub, live, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Data processing error: https://cdn.example/x?X-Amz-Signature=secret is gone\nand more")

    monkeypatch.setattr("adapters.repository.hf_hub_download", broken)
    failed = live.transcribe(SPEECH, "lang=fr")
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "adapter_away")
    reason = adapters(live)["fra"]["reason"]
    assert reason in failed.json()["error"]["message"]
    assert "RuntimeError: Data processing error: https://cdn.example/x" in reason
    assert "secret" not in reason
    assert "\n" not in reason
    monkeypatch.undo()
    assert live.transcribe(SPEECH, "lang=de").status_code == 200
    wait_until(lambda: live.transcribe(SPEECH, "lang=fr").status_code == 200, timeout_s=60)


def test_adapters_are_published_beside_those_of_the_hub(hub, repo, tmp_path):
    key = "0123456789abcdef"
    settings = Settings.read(backbone=repo, models=tmp_path / "mine", threads=1, admin_key=key)
    with serving(settings) as live:
        removed = live.http.delete("/adapters/fra", headers={"Authorization": f"Bearer {key}"})
        assert removed.status_code >= 400
        assert "read only" in removed.json()["error"]["message"]
        assert "fra" in adapters(live)


def test_a_restart_while_the_hub_is_away_serves_what_was_fetched_and_the_rest_when_it_is_back(
    hub, repo, live, tmp_path
):
    said = live.transcribe(SPEECH, "lang=fr").json()["text"]
    hub.away = True
    with serving(Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)) as again:
        listed = adapters(again)
        assert set(listed) == set(LANGUAGES)
        assert listed["fra"]["where"] != "remote"  # it was warmed up with
        assert (listed["deu"]["state"], listed["deu"]["where"]) == ("remote", "remote")
        assert again.transcribe(SPEECH, "lang=fr").json()["text"] == said
        failed = again.transcribe(SPEECH, "lang=de")
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "adapter_away")
        told = adapters(again)["deu"]
        assert told["state"] == "failed"
        assert "answered 503" in told["reason"]
        hub.away = False
        wait_until(lambda: again.transcribe(SPEECH, "lang=de").status_code == 200, timeout_s=60)


def test_a_restart_that_shall_not_ask_the_hub_serves_what_was_fetched(hub, repo, live, tmp_path, monkeypatch):
    assert live.transcribe(SPEECH, "lang=fr").status_code == 200
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with serving(Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)) as again:
        assert set(adapters(again)) == {"fra"}
        assert again.transcribe(SPEECH, "lang=fr").status_code == 200
    assert hub.requests == []


def test_a_stop_does_not_wait_for_the_first_download(hub, repo, tmp_path):
    hub.faults["model.safetensors"] = "trickle"
    settings = Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)
    with serving(settings, ready=False) as live:
        wait_until(lambda: hub.asked["model.safetensors"])
        assert live.http.get("/health/ready").json()["status"] == "starting"
        size = hub.repos[repo].joinpath("model.safetensors").stat().st_size
    assert hub.sent["model.safetensors"] < size, "it was cut off"


def test_the_threads_of_a_service_end_with_it(hub, repo, tmp_path):
    before = {thread.ident for thread in threading.enumerate()}
    with serving(Settings.read(backbone=repo, models=tmp_path / "mine", threads=1)) as live:
        assert live.transcribe(SPEECH, "lang=fr").status_code == 200
        names = {thread.name.partition("_")[0] for thread in threading.enumerate()}
        assert {"fetch", "seat"} <= names
    ours = ("fetch", "load", "seat")
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.ident not in before and t.name.startswith(ours)],
        timeout_s=10,
    )


def test_a_hub_that_cannot_be_reached_is_told_by_the_probes(hub, tmp_path):
    settings = Settings.read(backbone="nobody/nothing", models=tmp_path / "mine")
    with serving(settings, ready=False) as live:
        wait_until(lambda: live.http.get("/health/ready").json()["status"] == "failed")
        assert "no such repository" in live.http.get("/health/ready").json()["reason"]


def test_the_folder_of_such_a_checkpoint_serves_too(tmp_path):
    make_mms(tmp_path / "mms")
    shutil.rmtree(tmp_path / "mine", ignore_errors=True)
    with serving(Settings.read(backbone=str(tmp_path / "mms"), models=tmp_path / "mine", threads=1)) as live:
        assert live.transcribe(SPEECH, "lang=fr").json()["adapter"] == "fra"
