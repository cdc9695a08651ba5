"""Checkpoints out of a hub: pinned, resumed, served without a network, and refused with what would help."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from adapters import download as download_module
from adapters.backbone import fingerprint, load_backbone
from adapters.download import Progress
from adapters.errors import BackboneError, HubError
from adapters.repository import Folder, HubRepository, fetch_backbone, open_repository
from tests.builders import reference
from tests.hub import Hub

CHECKPOINT = "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    reference("wav2vec2-pre-norm-layer").save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that nobody opens")
    return folder


@pytest.fixture
def repo(hub: Hub, made: Path, tmp_path: Path) -> str:
    """A repository of its own for each test, so that nothing of it was fetched before."""
    name = f"someone/{tmp_path.name}"
    hub.repos[name] = shutil.copytree(made, tmp_path / "repo")
    return name


def test_a_backbone_comes_from_the_hub_once(hub, repo, made):
    found = open_repository(repo)
    assert isinstance(found, HubRepository)
    assert found.name == f"{repo}@{hub.commit(repo)}"
    folder = fetch_backbone(found)
    assert fingerprint(folder) == fingerprint(made)
    fetch_backbone(open_repository(repo))
    assert hub.asked[CHECKPOINT] == 1
    assert not hub.asked["pytorch_model.bin"], "a pickle is not even fetched"


def test_it_stays_at_its_commit(hub, repo):
    before = open_repository(repo)
    (hub.repos[repo] / "README.md").write_text("A newer revision.")
    assert open_repository(repo).name != before.name
    assert open_repository(f"{repo}@{hub.commit(repo)}").name == f"{repo}@{hub.commit(repo)}"
    with pytest.raises(HubError, match=r"there is no such revision of it"):
        open_repository(f"{repo}@v2")


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, repo, monkeypatch, caplog):
    monkeypatch.setattr(download_module, "_FIRST_WAIT_S", 0.01)
    hub.faults[CHECKPOINT] = "cut"
    folder = fetch_backbone(open_repository(repo))
    assert load_backbone(folder).layer_count == 4
    size = (hub.repos[repo] / CHECKPOINT).stat().st_size
    assert (hub.ranges, hub.sent[CHECKPOINT]) == ([(CHECKPOINT, size // 2)], size)
    assert hub.asked["config.json"] == 1, "what had come whole is kept"
    assert "the download broke off and is tried again in 0.01 s" in caplog.text


def test_a_hub_that_goes_away_in_the_middle_and_comes_back(hub, repo):
    hub.faults[CHECKPOINT] = "trickle"
    found: list[Path] = []
    fetching = threading.Thread(target=lambda: found.append(fetch_backbone(open_repository(repo))), daemon=True)
    fetching.start()
    while not hub.sent[CHECKPOINT]:
        time.sleep(0.01)
    hub.away = True  # for those who ask anew, and for those who wait
    while not hub.asked_in_vain:
        time.sleep(0.01)
    hub.away, hub.faults = False, {}
    fetching.join(120)
    assert load_backbone(found[0]).layer_count == 4
    assert hub.asked[CHECKPOINT] == 2
    assert hub.sent[CHECKPOINT] < 1.2 * (hub.repos[repo] / CHECKPOINT).stat().st_size


def test_what_is_not_there_is_not_asked_for_again(hub, repo):
    opened = open_repository(repo)
    hub.faults[CHECKPOINT] = "missing"
    begin = time.monotonic()
    with pytest.raises(HubError, match=r"answered 404"):
        fetch_backbone(opened)
    assert time.monotonic() - begin < download_module._FIRST_WAIT_S


def test_a_download_that_nobody_waits_for_any_more_is_given_up(hub, repo):
    hub.faults[CHECKPOINT] = "trickle"
    stop = threading.Event()
    opened = open_repository(repo, stop)
    threading.Timer(1.0, stop.set).start()
    begin = time.monotonic()
    with pytest.raises(HubError, match="the download was given up"):
        fetch_backbone(opened)
    assert time.monotonic() - begin < 4, "half a megabyte takes more than five seconds"
    assert not opened.here(CHECKPOINT)


def test_progress_needs_no_bars(hub, repo, monkeypatch, caplog):
    """As ``HF_HUB_DISABLE_PROGRESS_BARS=1`` has it."""
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with caplog.at_level(logging.INFO, "tongues.hub"):
        fetch_backbone(open_repository(repo))
        open_repository(repo).fetch("pytorch_model.bin")
    (size,) = re.findall(rf"fetching {repo}@.* from http.*: ([\d.]+) MB", caplog.text)
    told = [float(came) for came in re.findall(rf"fetched ([\d.]+) of {size} MB", caplog.text)]
    assert 3 < len(told) <= 11
    assert told == sorted(told)
    assert told[-1] == float(size)


def test_progress_is_told_in_tenths_and_never_goes_silent(caplog):
    now = [0.0]
    progress = Progress(4_000_000_000, threading.Event(), clock=lambda: now[0])
    received, written = progress.bars()(unit="B", desc="Downloading bytes"), progress.bars()(unit="B", desc="x")
    files = progress.bars()(desc="Fetching 5 files", total=5)
    with caplog.at_level(logging.INFO, "tongues.hub"):
        for second in range(1, 41):
            now[0] = float(second)
            received.update(1_000_000)
            written.update(900_000)
            files.update(1)
        for _ in range(9):
            received.update(400_000_000)
    assert [record.getMessage() for record in caplog.records] == [
        *(f"fetched {10.0 * tens} of 4000.0 MB" for tens in range(1, 5)),
        *(f"fetched {40.0 + 400 * tenth} of 4000.0 MB" for tenth in range(1, 10)),
    ]


def test_without_a_network_what_was_fetched_is_served(hub, repo, monkeypatch, caplog):
    name, folder = open_repository(repo).name, fetch_backbone(open_repository(repo))
    hub.away = True
    again = open_repository(repo)
    assert (again.name, fetch_backbone(again)) == (name, folder)
    assert "what was fetched before is served" in caplog.text
    assert set(again.files) == {path.name for path in hub.repos[repo].iterdir()}, "the rest may come"
    assert again.files[CHECKPOINT].sha256 == hashlib.sha256((folder / CHECKPOINT).read_bytes()).hexdigest()
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own, between its tries
    with pytest.raises(HubError, match="answered 503"):
        again.fetch("pytorch_model.bin")
    hub.away = False
    assert again.fetch("pytorch_model.bin").read_bytes() == b"a pickle that nobody opens"
    again.fetch("pytorch_model.bin").unlink()
    hub.away = True
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_backbone(open_repository(repo)) == folder
    assert set(open_repository(repo).files) == {"config.json", CHECKPOINT, "preprocessor_config.json"}
    with pytest.raises(HubError, match=r"it is not in the cache, and the hub is not asked"):
        open_repository(repo).fetch("pytorch_model.bin")


def test_what_was_never_fetched_needs_the_hub(hub, repo):
    hub.away = True
    with pytest.raises(HubError, match=r"the hub at http://127.0.0.1:\d+ cannot be reached, and nothing of it was"):
        open_repository(repo)


def test_what_pins_a_repository_is_told(hub, repo, caplog):
    with caplog.at_level(logging.INFO, "tongues.hub"):
        found = open_repository(repo)
    pin = f"{repo}@{hub.commit(repo)}"
    assert f"{repo}: to stay at it: {pin}" in caplog.text
    assert open_repository(pin) == found


def test_the_first_reason_is_told(hub, repo, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own, between its tries
    commit = hub.commit(repo)
    with pytest.raises(HubError, match="there is no such revision of it"):
        open_repository(f"{repo}@{'0' * 40}")
    hub.private[repo] = "hf_secret"
    with pytest.raises(HubError, match="HF_TOKEN"):
        open_repository(f"{repo}@{commit}")
    hub.away = True
    with pytest.raises(HubError, match="answered 503"):
        open_repository(f"{repo}@{commit}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="nothing of it was fetched before, and the hub is not asked"):
        open_repository(f"{repo}@{commit}")


def test_a_mirror_that_answers_something_else(hub, repo):
    """Such as the page of a proxy that wants a password."""
    opened = open_repository(repo)
    hub.page = b"<html>Who are you?</html>"
    for source in (repo, f"{repo}@{hub.commit(repo)}"):
        with pytest.raises(HubError, match=r"it cannot be had from the hub at http.*: JSONDecodeError"):
            open_repository(source)
    with pytest.raises(HubError, match=r"config.json of .*X-Repo-Commit"):
        opened.fetch("config.json")


def test_no_such_repository(hub):
    with pytest.raises(HubError, match=r"no such repository, or it is private: .* HF_TOKEN"):
        open_repository("nobody/nothing")
    for source in ("no/such/thing", "mms", "http://127.0.0.1/x", "s3://a/b"):
        with pytest.raises(HubError, match=r"neither a folder nor the id of a repository"):
            open_repository(source)


def test_a_private_repository_takes_a_token(hub, repo, monkeypatch):
    hub.private[repo] = "hf_secret"
    with pytest.raises(HubError, match="HF_TOKEN"):
        open_repository(repo)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch_backbone(open_repository(repo)).is_dir()


def test_a_repository_of_pickles_alone_is_refused(hub, repo):
    (hub.repos[repo] / CHECKPOINT).unlink()
    with pytest.raises(BackboneError, match=rf"{repo}: .*`tongues backbone convert {repo} --out FOLDER`"):
        fetch_backbone(open_repository(repo))


def test_weights_in_several_files(hub, repo, made):
    folder = hub.repos[repo]
    tensors = list(load_file(folder / CHECKPOINT).items())
    (folder / CHECKPOINT).unlink()
    index: dict[str, str] = {}
    for number in range(3):
        file = f"model-0000{number + 1}-of-00003.safetensors"
        save_file(dict(tensors[number::3]), folder / file, {"format": "pt"})
        index |= dict.fromkeys(dict(tensors[number::3]), file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found = fetch_backbone(open_repository(repo))
    assert fingerprint(found) == fingerprint(made)
    each = [load_backbone(folder, serving=False).parameters() for folder in (found, made)]
    for one, other in zip(*each, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": "gone"}}'])
def test_a_broken_index_of_weights(tmp_path, made, content):
    folder = shutil.copytree(made, tmp_path / "broken")
    (folder / CHECKPOINT).unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BackboneError, match=r"model.safetensors.index.json: (not an index|names)"):
        load_backbone(folder)


def test_all_of_a_checkpoint_is_fetched_that_says_how_it_is_used(hub, repo):
    for name in ("processor_config.json", "added_tokens.json", "README.md"):
        (hub.repos[repo] / name).write_text("{}")
    folder = fetch_backbone(open_repository(repo))
    assert {"processor_config.json", "added_tokens.json"} == {p.name for p in folder.iterdir()} - {
        "config.json", CHECKPOINT, "preprocessor_config.json",
    }  # fmt: skip


def test_a_folder(made):
    found = open_repository(str(made))
    assert isinstance(found, Folder)
    assert fetch_backbone(found) == made
    before = found.files[CHECKPOINT].stamp
    (made / CHECKPOINT).touch()
    assert found.files[CHECKPOINT].stamp != before
    with pytest.raises(HubError, match="no gone"):
        found.fetch("gone")
