"""Checkpoints out of a hub: pinned, resumed, served without a network, and refused with what would help."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from adapters.backbone import fingerprint, load_backbone
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
    assert found.name == f"{repo}@{hub.commit(repo)[:12]}"
    folder = fetch_backbone(found)
    assert fingerprint(folder) == fingerprint(made)
    fetch_backbone(open_repository(repo))
    assert hub.asked[CHECKPOINT] == 1
    assert not hub.asked["pytorch_model.bin"], "a pickle is not even fetched"


def test_it_stays_at_its_commit(hub, repo):
    before = open_repository(repo)
    (hub.repos[repo] / "README.md").write_text("A newer revision.")
    assert open_repository(repo).name != before.name
    assert open_repository(f"{repo}@{hub.commit(repo)}").name == f"{repo}@{hub.commit(repo)[:12]}"
    with pytest.raises(HubError, match=r"there is no such revision of it"):
        open_repository(f"{repo}@v2")


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, repo, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # of which only whole ones are kept
    hub.faults[CHECKPOINT] = "cut"
    folder = fetch_backbone(open_repository(repo))
    assert load_backbone(folder).layer_count == 4
    size = (hub.repos[repo] / CHECKPOINT).stat().st_size
    assert hub.asked[CHECKPOINT] == 2
    assert hub.bytes_sent < 1.2 * size + 50_000, "the first half was not sent again"


def test_without_a_network_what_was_fetched_is_served(hub, repo, monkeypatch, caplog):
    name, folder = open_repository(repo).name, fetch_backbone(open_repository(repo))
    hub.away = True
    again = open_repository(repo)
    assert (again.name, fetch_backbone(again)) == (name, folder)
    assert "what was fetched before is served" in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_backbone(open_repository(repo)) == folder
    assert set(open_repository(repo).files) == {"config.json", CHECKPOINT, "preprocessor_config.json"}
    with pytest.raises(HubError, match=r"it is not in the cache, and the hub is not asked"):
        open_repository(repo).fetch("pytorch_model.bin")


def test_what_was_never_fetched_needs_the_hub(hub, repo):
    hub.away = True
    with pytest.raises(HubError, match=r"the hub at http://127.0.0.1:\d+ cannot be reached, and nothing of it was"):
        open_repository(repo)


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
    for one, other in zip(load_backbone(found).parameters(), load_backbone(made).parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": "gone"}}'])
def test_a_broken_index_of_weights(tmp_path, made, content):
    folder = shutil.copytree(made, tmp_path / "broken")
    (folder / CHECKPOINT).unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BackboneError, match=r"model.safetensors.index.json: (not an index|names)"):
        load_backbone(folder)


def test_a_folder(made):
    found = open_repository(str(made))
    assert isinstance(found, Folder)
    assert fetch_backbone(found) == made
    before = found.files[CHECKPOINT].stamp
    (made / CHECKPOINT).touch()
    assert found.files[CHECKPOINT].stamp != before
    with pytest.raises(HubError, match="no gone"):
        found.fetch("gone")
