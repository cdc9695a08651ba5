"""Languages beside a backbone on a hub: registered without their weights, fetched one by one, refused one by one."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from adapters.backbone import fingerprint, read_config
from adapters.encoder import size_of
from adapters.errors import (
    AdapterAway,
    AdapterCorrupt,
    AdapterError,
    AdapterFormatError,
    AdapterMismatch,
    AmbiguousLanguage,
    HubError,
)
from adapters.formats.mms import mms_language
from adapters.mms_store import MmsStore, mms_store
from adapters.registry import Registry
from adapters.repository import fetch_backbone, open_repository
from tests.hub import Hub
from tests.mms import LANGUAGES, make_mms, tuned_mms


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("mms")
    make_mms(folder)
    return folder


@pytest.fixture
def repo(hub: Hub, made: Path, tmp_path: Path) -> str:
    name = f"meta/{tmp_path.name}"
    hub.repos[name] = shutil.copytree(made, tmp_path / "repo")
    return name


def opened(repo: str) -> MmsStore:
    repository = open_repository(repo)
    folder = fetch_backbone(repository)
    store = mms_store(repository, folder, size_of(read_config(folder)), fingerprint(folder))
    assert store is not None
    return store


def registry(store: MmsStore) -> Registry:
    return Registry([store], store.record("deu").fingerprint or "", store._size)


def test_a_thousand_languages_are_registered_without_their_weights(hub, repo):
    folder, vocab = hub.repos[repo], {}
    tokens = {token: number for number, token in enumerate(LANGUAGES["deu"])}
    source = (folder / "adapter.deu.safetensors").read_bytes()
    for path in folder.glob("adapter.*"):
        path.unlink()
    for number in range(1_162):
        code = f"deu-dialect_{number:04d}"
        (folder / f"adapter.{code}.safetensors").write_bytes(source)
        vocab[code] = tokens
    (folder / "vocab.json").write_text(json.dumps(vocab))
    store = opened(repo)
    assert len(store.signatures()) == 1_162
    found = Registry([store], store.record("deu-dialect_0000").fingerprint or "", store._size).snapshot
    assert len(found.adapters) == 1_162
    assert not any(name.startswith("adapter.") for name in hub.asked)
    assert not store.here(store.record("deu-dialect_0007"))
    store.load(store.record("deu-dialect_0007"), size=store._size)
    assert store.here(store.record("deu-dialect_0007"))
    assert {name: count for name, count in hub.asked.items() if name.startswith("adapter.")} == {
        "adapter.deu-dialect_0007.safetensors": 1
    }


def test_languages_by_tag_and_by_script(hub, repo):
    known = registry(opened(repo))
    assert known.resolve(language="de").name == known.resolve(language="German").name == "deu"
    assert known.resolve(language="ug-Cyrl").name == "uig-script_cyrillic"
    assert known.resolve(language="ug-Arab").name == "uig-script_arabic"
    assert known.resolve(language="uig-script_arabic").name == "uig-script_arabic"
    assert known.resolve(name="uig-script_cyrillic").name == "uig-script_cyrillic"
    for unclear in ("ug", "uig", "Uyghur"):
        with pytest.raises(AmbiguousLanguage, match=r"adapter=uig-script_arabic, uig-script_cyrillic"):
            known.resolve(language=unclear)


@pytest.mark.parametrize(
    ("code", "tag"),
    [
        ("deu", "de"), ("uzb-script_cyrillic", "uz-Cyrl"), ("uzb-script_latin", "uz"), ("cmn-script_simplified", "zh"),
        ("quc-dialect_east", "quc"), ("urd-script_devanagari", "ur-Deva"), ("nonsense", None), ("", None),
    ],
)  # fmt: skip
def test_codes_of_languages(code, tag):
    assert mms_language(code) == tag


def test_what_is_listed_says_where_it_is_from(hub, repo):
    record = opened(repo).record("fra")
    assert (record.language, record.verified, record.default) == ("fr", True, False)
    assert record.training["source"] == f"{repo}@{hub.commit(repo)}"
    assert record.config.vocab_size == len(LANGUAGES["fra"])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("unavailable", r"answered 503|cannot be reached"),
        ("truncated", r"fra.*(size|came as another|cannot be reached|Consistency)"),
        ("wrong", "came as another file"),
        ("missing", "fra"),
    ],
)
def test_a_file_that_cannot_be_had_takes_no_other_with_it(hub, repo, fault, says, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    store = opened(repo)
    hub.faults["adapter.fra.safetensors"] = fault
    for _ in range(2):
        with pytest.raises((AdapterAway, AdapterCorrupt), match=says):
            store.load(store.record("fra"), size=store._size)
    assert store.load(store.record("deu"), size=store._size).vocab.size == len(LANGUAGES["deu"])
    hub.faults.clear()
    assert store.load(store.record("fra"), size=store._size).vocab.size == len(LANGUAGES["fra"])


def test_a_language_that_broke_off_is_gone_on_with(hub, repo):
    store, file = opened(repo), "adapter.fra.safetensors"
    size = (hub.repos[repo] / file).stat().st_size
    hub.resets[file] = [size // 2]
    with pytest.raises(AdapterAway, match="cannot be reached"):
        store.load(store.record("fra"), size=store._size)
    store.load(store.record("fra"), size=store._size)
    assert hub.ranges == [(file, size // 2)]
    assert hub.sent[file] == size


def test_a_file_of_ten_gigabytes_is_refused_before_it_is_fetched(hub, repo):
    hub.faults["adapter.fra.safetensors"] = "huge"
    known = registry(opened(repo))
    (refused,) = known.snapshot.refused
    assert refused.name == "fra"
    assert "10737418240 bytes; such an adapter has" in refused.error.reason
    assert not hub.asked["adapter.fra.safetensors"]
    assert set(known.snapshot.adapters) == set(LANGUAGES) - {"fra"}


def test_a_file_of_another_size_is_refused_before_it_is_read(made, tmp_path, monkeypatch):
    folder = shutil.copytree(made, tmp_path / "mms")
    store = opened(str(folder))
    record = store.record("fra")
    file = folder / "adapter.fra.safetensors"
    with file.open("r+b") as grown:
        grown.truncate(1 << 33)  # of which nothing lies on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    with pytest.raises(AdapterCorrupt, match="came as another file"):
        store.load(record, size=store._size)


def test_a_folder_is_listed_again_when_it_changes(made, tmp_path, caplog):
    folder = shutil.copytree(made, tmp_path / "mms")
    store = opened(str(folder))
    known = registry(store)
    first = known.look()
    assert known.look() is first
    shutil.copyfile(folder / "adapter.fra.safetensors", folder / "adapter.ita.safetensors")
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text("{")
    assert set(known.look().adapters) == set(LANGUAGES), "half written"
    assert caplog.text.count("what was listed before stands") == 1
    (folder / "vocab.json").write_text(json.dumps({**vocab, "ita": vocab["fra"]}))
    (folder / "adapter.deu.safetensors").unlink()
    assert set(known.scan().adapters) == {*LANGUAGES, "ita"} - {"deu"}
    assert store.load(known.resolve(language="it").record, size=store._size).record.name == "ita"


def test_a_file_that_is_overwritten_in_place_is_another_version(made, tmp_path):
    """As long as before, and so is its folder's time."""
    folder = shutil.copytree(made, tmp_path / "mms")
    store = opened(str(folder))
    known = registry(store)
    before = known.resolve(language="fr").record
    path = folder / "adapter.fra.safetensors"
    other = {key: tensor + 1 for key, tensor in load_file(path).items()}
    size, told = path.stat().st_size, path.stat()
    with path.open("r+b") as file:
        file.write(safetensors.torch.save(other, {"format": "pt"}))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns + 1))
    assert path.stat().st_size == size
    with pytest.raises(AdapterCorrupt, match="came as another file"):
        store.load(before, size=store._size)
    after = known.look().adapters["fra"].record
    assert after.version != before.version
    head = store.load(after, size=store._size).tensors["head.weight"]
    assert torch.equal(head, other["lm_head.weight"])
    assert store.here(after)
    with pytest.raises(AdapterCorrupt, match="came as another file"):
        store.load(before, size=store._size)


@pytest.mark.parametrize("kept", ["added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize("where", ["folder", "hub"])
def test_tokens_that_the_tokenizer_adds_are_served(hub, repo, tmp_path, kept, where):
    """By Hugging Face's recipe for adapters of MMS: rows for ``<s>`` and ``</s>``, which its vocabulary has not."""
    folder = hub.repos[repo]
    tokenizer = tuned_mms(folder)
    if kept == "tokenizer_config.json":
        (folder / "added_tokens.json").unlink()
    store = opened(repo if where == "hub" else str(folder))
    for _ in range(2):  # the second time, a hub's file is here
        record = store.record("tur")
        loaded = store.load(record, size=store._size)
        assert record.config.vocab_size == loaded.vocab.size == len(tokenizer) == 8
        assert {token: i for i, token in enumerate(loaded.vocab.tokens)} == tokenizer.get_vocab()
    assert loaded.vocab.tokens[loaded.vocab.blank] == "[PAD]"
    assert store.load(store.record("deu"), size=store._size).vocab.size == len(LANGUAGES["deu"]), "as it was"


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_a_head_without_rows_for_what_the_tokenizer_adds(hub, repo, where):
    """Which of a hub is not known before its file has come."""
    folder = hub.repos[repo]
    tuned_mms(folder)
    path = folder / "adapter.tur.safetensors"
    tensors = load_file(path)
    save_file({key: t[:6].contiguous() if key.startswith("lm_head") else t for key, t in tensors.items()}, path)
    store = opened(repo if where == "hub" else str(folder))
    for _ in range(2):
        loaded = store.load(store.record("tur"), size=store._size)
        assert loaded.vocab.tokens == ("a", "b", "c", "|", "[UNK]", "[PAD]")
        assert loaded.record.config.vocab_size == 6


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_a_head_with_rows_that_no_token_has(hub, repo, where):
    """Which are not known before its file is read, and say nothing; where they are most, the tokens are another's."""
    tokens = LANGUAGES["fra"]
    for code, more in (("fra", 3), ("deu", len(LANGUAGES["deu"]) + 1)):
        path = hub.repos[repo] / f"adapter.{code}.safetensors"
        tensors = load_file(path)
        rows = {key: torch.cat([t, torch.ones(more, *t.shape[1:])]) for key, t in tensors.items() if "lm_head" in key}
        save_file({**tensors, **rows}, path)
    store = opened(repo if where == "hub" else str(hub.repos[repo]))
    loaded = store.load(store.record("fra"), size=store._size)
    assert loaded.vocab.tokens == (*tokens, *(f"<unused-{len(tokens) + i}>" for i in range(3)))
    assert loaded.record.config.vocab_size == len(loaded.tensors["head.bias"]) == len(tokens) + 3
    with pytest.raises(AdapterMismatch, match=r"head\.\w+ .*shape"):
        store.load(store.record("deu"), size=store._size)


def test_what_is_listed_without_a_hub_is_checked_all_the_same(hub, repo, monkeypatch):
    opened(repo)
    hub.away = True
    with monkeypatch.context() as hurried:
        hurried.setattr("time.sleep", lambda seconds: None)  # the client's own, between its tries
        store = opened(repo)
    hub.away = False
    store.load(store.record("fra"), size=store._size)
    path = store._repository.fetch("adapter.fra.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(8))
    with pytest.raises(AdapterCorrupt, match="came as another file"):
        store.load(store.record("fra"), size=store._size)
    store.load(store.record("fra"), size=store._size)
    assert store._repository.fetch("adapter.fra.safetensors").read_bytes() == content


def test_the_tokenizer_beside_says_which_is_the_blank(hub, repo):
    (hub.repos[repo] / "special_tokens_map.json").write_text('{"pad_token": "<s>"}')
    store = opened(repo)
    for code in ("deu", "fra"):
        vocab = store.load(store.record(code), size=store._size).vocab
        assert vocab.blank == LANGUAGES[code].index("<s>")


def test_a_tokenizer_that_changes_is_read_again(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "mms")
    store = opened(str(folder))
    known = registry(store)
    before = known.resolve(language="fr").version
    (folder / "tokenizer_config.json").write_text('{"pad_token": "<s>"}')
    assert known.scan().adapters["fra"].version != before
    assert store.load(store.record("fra"), size=store._size).vocab.blank == LANGUAGES["fra"].index("<s>")


def test_a_tokenizer_that_makes_other_texts_is_refused(hub, repo):
    (hub.repos[repo] / "tokenizer_config.json").write_text('{"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}')
    with pytest.raises(HubError, match=rf"{repo}@.*: the tokenizer in .* is a Wav2Vec2PhonemeCTCTokenizer"):
        opened(repo)


def test_a_repository_is_not_looked_at_again(hub, repo, made):
    assert opened(repo).pace_s == math.inf
    assert opened(str(made)).pace_s == 0.0
    store = opened(repo)
    hub.requests.clear()
    for _ in range(3):
        registry(store).look()
    assert hub.requests == []


def test_listing_a_thousand_looks_for_no_file(hub, repo, monkeypatch):
    store = opened(repo)
    found = registry(store).snapshot.adapters.values()
    monkeypatch.setattr("adapters.repository.try_to_load_from_cache", lambda *_, **__: pytest.fail("it is looked for"))
    monkeypatch.setattr("adapters.shelf.parameter_count", lambda *_: pytest.fail("it is counted"))
    assert not any(adapter.here for adapter in found)
    assert all(adapter.parameters(store._size) > 1_000 for adapter in found)


def rewritten(hub: Hub, repo: str, code: str, **changes: torch.Tensor | None) -> MmsStore:
    path = hub.repos[repo] / f"adapter.{code}.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        key = next(key for key in tensors if key.endswith(name.replace("__", ".")))
        tensors.pop(key)
        if tensor is not None:
            tensors[key] = tensor
    save_file(tensors, path, {"format": "pt"})
    return opened(repo)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers__3__adapter_layer__linear_2__bias": None}, "'layers.3.layer.linear_2.bias' is missing"),
        ({"layers__0__adapter_layer__norm__bias": torch.full((48,), torch.nan)}, "holds NaN"),
        ({"layers__0__adapter_layer__linear_1__weight": torch.ones(8, 48)}, r"of shape \(8, 48\), not \(16, 48\)"),
        ({"lm_head__weight": torch.ones(7, 48)}, "of shape"),
        ({"layers__0__adapter_layer__linear_1__weight": None}, "no adapter_layer.linear_1.weight of layer 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(hub, repo, changes, says):
    store = rewritten(hub, repo, "fra", **changes)
    with pytest.raises(AdapterError, match=says) as told:
        store.load(store.record("fra"), size=store._size)
    assert told.value.name == "fra"


def test_an_adapter_of_a_deeper_backbone_is_refused(hub, repo):
    path = hub.repos[repo] / "adapter.fra.safetensors"
    tensors = load_file(path)
    tensors["wav2vec2.encoder.layers.7.adapter_layer.norm.bias"] = torch.zeros(48)
    save_file(tensors, path, {"format": "pt"})
    store = opened(repo)
    with pytest.raises(AdapterError, match="an adapter for layer 7, and the backbone has 4 layers"):
        store.load(store.record("fra"), size=store._size)


def test_what_is_no_safetensors_and_what_has_no_vocabulary(hub, repo):
    (hub.repos[repo] / "adapter.fra.safetensors").write_bytes(b"\x80\x04 a pickle")
    (hub.repos[repo] / "adapter.xho.safetensors").write_bytes(b"")
    store = opened(repo)
    with pytest.raises(AdapterFormatError, match="is not safetensors"):
        store.load(store.record("fra"), size=store._size)
    with pytest.raises(AdapterFormatError, match=r"vocab\.json .* has no part for 'xho'"):
        store.record("xho")


@pytest.mark.parametrize("content", ["{", "[]", '{"deu": 3}'])
def test_a_broken_vocabulary_is_told_at_once(hub, repo, content):
    (hub.repos[repo] / "vocab.json").write_text(content)
    with pytest.raises(HubError, match=r"vocab\.json"):
        opened(repo)


def test_backbones_without_languages_have_no_such_store(hub, made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "bare")
    for path in folder.glob("adapter.*"):
        path.unlink()
    assert mms_store(open_repository(str(folder)), folder, size_of(read_config(folder)), "") is None
