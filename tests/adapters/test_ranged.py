"""Weights that come in parts: what has come is gone on with, and nothing wrong comes of it."""

from __future__ import annotations

import logging
import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from huggingface_hub import constants, scan_cache_dir, snapshot_download
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from adapters import download as download_module
from adapters.errors import HubError
from adapters.partial import Partial
from adapters.repository import Repository, open_repository
from tests.hub import Hub

WEIGHTS = "model.safetensors"
SIZE, FIRST = 400_000, 150_000


@pytest.fixture
def repo(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository of its own for each test, whose weights are noise."""
    monkeypatch.setattr(download_module, "_FIRST_WAIT_S", 0.001)
    name = f"someone/{tmp_path.name}"
    hub.repos[name] = tmp_path / "repo"
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config.json").write_text("{}")
    (tmp_path / "repo" / WEIGHTS).write_bytes(os.urandom(SIZE))
    return name


def there(hub: Hub, repo: str) -> bytes:
    return (hub.repos[repo] / WEIGHTS).read_bytes()


def partial(repo: str, content: bytes) -> Path:
    """Where what has come of the weights lies."""
    return Partial(repo, WEIGHTS, sha256(content).hexdigest()).path


def partials(repo: str) -> list[Path]:
    return list(partial(repo, b"").parent.glob("*.incomplete"))


def interrupted(hub: Hub, repo: str, after: int = FIRST) -> Repository:
    """The repository once the first bytes of its weights have come."""
    hub.resets[WEIGHTS] = [after]
    opened = open_repository(repo)
    with pytest.raises(HubError, match="cannot be reached"):
        opened.fetch(WEIGHTS)
    assert partials(repo) == [partial(repo, there(hub, repo))]
    assert partials(repo)[0].stat().st_size == after
    return opened


def test_what_has_come_is_not_sent_again(hub, repo, caplog):
    hub.resets[WEIGHTS] = [FIRST]
    with caplog.at_level(logging.INFO, "tongues.hub"):
        folder = open_repository(repo).fetch_all([WEIGHTS, "config.json"])
    assert (folder / WEIGHTS).read_bytes() == there(hub, repo)
    assert hub.ranges == [(WEIGHTS, FIRST)]
    assert hub.sent[WEIGHTS] == SIZE
    assert "goes on at 0.1 of 0.4 MB" in caplog.text
    assert "fetched 0.2 of 0.2 MB" in caplog.text, "progress is that of what is to come"


def test_it_is_tried_as_long_as_more_comes(hub, repo):
    hub.resets[WEIGHTS] = [30_000] * 2 * download_module.TRIES
    assert (open_repository(repo).fetch_all([WEIGHTS]) / WEIGHTS).read_bytes() == there(hub, repo)
    assert hub.sent[WEIGHTS] == SIZE


def test_it_is_given_up_where_no_more_comes(hub, repo):
    hub.resets[WEIGHTS] = [FIRST, *[0] * 2 * download_module.TRIES]
    with pytest.raises(HubError, match=r"model\.safetensors of .*cannot be reached"):
        open_repository(repo).fetch_all([WEIGHTS])
    assert hub.ranges == [(WEIGHTS, FIRST)] * download_module.TRIES
    assert partials(repo)[0].stat().st_size == FIRST, "the next start goes on"


def test_the_client_finds_it_where_it_keeps_its_own(hub, repo):
    interrupted(hub, repo).fetch_all([WEIGHTS, "config.json"])
    place = Path(snapshot_download(repo, local_files_only=True)) / WEIGHTS
    assert place.is_symlink()
    assert place.resolve() == Partial(repo, WEIGHTS, sha256(there(hub, repo)).hexdigest()).blob
    (found,) = (one for one in scan_cache_dir().repos if one.repo_id == repo)
    assert {file.file_name for revision in found.revisions for file in revision.files} == {WEIGHTS, "config.json"}
    assert not partials(repo)
    assert place.stat().st_mode & 0o777 == (place.parent / "config.json").stat().st_mode & 0o777


def test_a_hub_that_knows_no_ranges_sends_all_of_it(hub, repo):
    opened = interrupted(hub, repo)
    hub.rangeless = True
    assert opened.fetch(WEIGHTS).read_bytes() == there(hub, repo)
    assert hub.sent[WEIGHTS] == FIRST + SIZE


def test_what_has_come_of_other_content_is_not_used(hub, repo):
    interrupted(hub, repo)
    (hub.repos[repo] / WEIGHTS).write_bytes(os.urandom(SIZE))
    assert open_repository(repo).fetch(WEIGHTS).read_bytes() == there(hub, repo)
    assert hub.ranges == []
    assert not partials(repo), "and does not stay for ever"


def test_what_another_process_goes_on_with_stays(hub, repo):
    interrupted(hub, repo)
    (old,) = partials(repo)
    (hub.repos[repo] / WEIGHTS).write_bytes(os.urandom(SIZE))
    lock = Path(constants.HF_HUB_CACHE, ".locks", old.parent.parent.name, f"{old.name.partition('.')[0]}.lock")
    with WeakFileLock(lock):
        open_repository(repo).fetch(WEIGHTS)
    assert partials(repo) == [old]


@pytest.mark.parametrize("damage", ["wrong", "longer", "shifted", "whole"])
def test_what_came_wrong_before_is_fetched_anew(hub, repo, damage, caplog):
    opened = interrupted(hub, repo)
    (path,) = partials(repo)
    if damage == "shifted":  # the hub sends another range than it was asked for
        hub.faults[WEIGHTS] = "shifted"
    else:
        path.write_bytes(os.urandom({"wrong": FIRST, "longer": SIZE + 1, "whole": SIZE}[damage]))
    assert opened.fetch(WEIGHTS).read_bytes() == there(hub, repo)
    assert hub.ranges == ([] if damage in ("longer", "whole") else [(WEIGHTS, FIRST)])
    assert ("is begun anew: " in caplog.text) == (damage != "longer")


def test_what_was_whole_is_not_asked_for(hub, repo):
    """A process that ended before it could say so."""
    opened = interrupted(hub, repo)
    partials(repo)[0].write_bytes(there(hub, repo))
    asked = hub.asked[WEIGHTS]
    assert opened.fetch(WEIGHTS).read_bytes() == there(hub, repo)
    assert hub.asked[WEIGHTS] == asked


@pytest.mark.parametrize(
    ("fault", "says"), [("wrong", "its SHA-256 is .* is right"), ("short", "the hub sends 1000 byt")]
)
@pytest.mark.parametrize("before", [False, True])
def test_what_comes_wrong_is_refused_and_does_not_stay(hub, repo, fault, says, before):
    opened = interrupted(hub, repo) if before else open_repository(repo)
    hub.faults[WEIGHTS] = fault
    asked = hub.asked[WEIGHTS]
    with pytest.raises(HubError, match=rf"model\.safetensors came as another file than {opened.name} lists: {says}"):
        opened.fetch(WEIGHTS)
    assert hub.asked[WEIGHTS] - asked == 1 + before, "what was gone on with is tried once from its beginning"
    assert not partials(repo)
    assert not opened.here(WEIGHTS)
    hub.faults.clear()
    assert opened.fetch(WEIGHTS).read_bytes() == there(hub, repo)


@pytest.mark.parametrize("xet", [False, True])
def test_the_token_stays_with_the_hub(hub, repo, monkeypatch, xet):
    hub.xet = xet
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.private[repo] = "hf_secret"
    with Hub(repos=hub.repos).running() as elsewhere:
        hub.elsewhere = elsewhere
        elsewhere.resets[WEIGHTS] = [FIRST]
        folder = open_repository(repo).fetch_all([WEIGHTS, "config.json"])
    assert (folder / WEIGHTS).read_bytes() == there(hub, repo)
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert set(elsewhere.tokens) == {None}
    assert elsewhere.ranges == [(WEIGHTS, FIRST)]
    assert (elsewhere.sent[WEIGHTS], hub.sent[WEIGHTS]) == (SIZE, 0)


def test_a_cache_that_cannot_be_written_is_told(hub, repo):
    blobs = partial(repo, b"").parent
    blobs.parent.mkdir()
    blobs.write_bytes(b"not a folder")
    with pytest.raises(HubError, match=rf"model\.safetensors of {repo} cannot be written to {blobs}: .*HF_HOME"):
        open_repository(repo).fetch(WEIGHTS)


def test_without_links_it_is_there_once(hub, repo, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    place = interrupted(hub, repo).fetch(WEIGHTS)
    assert place.read_bytes() == there(hub, repo)
    assert not place.is_symlink()
    assert not list(partial(repo, b"").parent.iterdir())


def test_who_waits_for_another_process_can_give_up(hub, repo):
    stop = threading.Event()
    opened = open_repository(repo, stop)
    lock = Path(constants.HF_HUB_CACHE, ".locks", partial(repo, b"").parent.parent.name)
    lock.mkdir(parents=True)
    with WeakFileLock(lock / f"{sha256(there(hub, repo)).hexdigest()}.lock"):
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(HubError, match="the download was given up"):
            opened.fetch(WEIGHTS)
    assert not hub.asked[WEIGHTS]
