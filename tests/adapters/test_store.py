"""What is published is loaded, and what is not of the form is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters.errors import (
    AdapterCorrupt,
    AdapterFormatError,
    AdapterMismatch,
    UnknownAdapter,
)
from adapters.language_model import LanguageModel, estimate
from adapters.record import AdapterRecord
from adapters.store import AdapterStore
from tests.adapters.published import BAD, SIZE, VOCAB, files, publish, tensors

ROOT = Path(__file__).parents[2]


def test_what_is_published_is_loaded(store):
    metrics = {"test": {"wer": 0.25, "cer": 0.06}}
    record = publish(store, default=True, metrics=metrics, training={"steps": 3}, licence="CC0-1.0", synthetic=True)
    assert store.names() == ("de",)
    assert store.record("de") == record
    assert (record.language, record.dtype, record.default, record.synthetic) == ("de", "float16", True, True)
    assert record.metrics == metrics
    loaded = store.load(record, size=SIZE)
    assert loaded.record == record
    assert loaded.vocab == VOCAB
    assert loaded.tensors.keys() == tensors().keys()
    assert all(torch.equal(loaded.tensors[key], value) for key, value in tensors().items())
    assert files(store) == {"adapter.json", record.weights.name, record.vocab.name}


def test_a_language_model_is_part_of_its_version(store):
    without = publish(store)
    model = LanguageModel(estimate(["grüße aus bonn"]), alpha=0.4, beta=2.0)
    record = publish(store, language_model=model)
    assert record.version != without.version
    loaded = store.load(record, size=SIZE)
    assert loaded.language_model == model
    assert loaded.bytes == store.load(without, size=SIZE).bytes + len(model.arpa)
    assert store.load(without, size=SIZE).language_model is None
    assert "language_model" not in without.to_json(), "as it was before there were any"
    store.sweep(-1.0)
    assert files(store) == {"adapter.json", *(stored.name for stored in record.files.values())}
    assert store.load(store.record("de"), size=SIZE).language_model == model
    (store.folder / "de" / record.files["language_model"].name).write_bytes(model.packed[:-9])
    with pytest.raises(AdapterCorrupt, match="words-"):
        store.load(record, size=SIZE)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"alpha": "much"}, "'alpha' in language_model is a number, not 'much'"),
        ({"beta": None}, "'beta' in language_model is a number"),
        ({"file": "/etc/passwd"}, "of this hash lie in words-"),
        ({"gamma": 1}, "unknown field 'gamma'"),
    ],
)
def test_a_record_of_another_language_model_is_refused(store, change, wrong):
    record = publish(store, language_model=LanguageModel(estimate(["a b"])))
    told = json.loads(record.to_json())
    told["language_model"].update(change)
    with pytest.raises(AdapterFormatError, match=wrong):
        AdapterRecord.from_json("de", json.dumps(told))


def test_what_is_no_language_model_is_not_published(store):
    before = publish(store)
    with pytest.raises(AdapterFormatError, match="ARPA"):
        publish(store, language_model=LanguageModel(b"words"))
    assert store.record("de") == before


def test_nothing_is_shared_with_the_publisher(store):
    training = {"steps": [1]}
    record = publish(store, training=training)
    training["steps"].append(2)
    assert record.training == {"steps": [1]}


def test_the_old_version_stays_loadable(store):
    old, new = publish(store, seed=0), publish(store, seed=1)
    assert old.version != new.version
    assert store.record("de").version == new.version
    assert torch.equal(store.load(old, size=SIZE).tensors["head.weight"], tensors(0)["head.weight"])
    assert torch.equal(store.load(new, size=SIZE).tensors["head.weight"], tensors(1)["head.weight"])


def test_equal_adapters_are_equal_versions(store, tmp_path):
    assert publish(store).version == publish(AdapterStore(tmp_path / "elsewhere")).version


def test_views_and_gradients_are_published_by_value(store):
    given = {key: torch.nn.Parameter(value.float().repeat_interleave(2, 0)[::2]) for key, value in tensors().items()}
    record = publish(store, tensors=given)
    assert record.dtype == "float32"
    loaded = store.load(record, size=SIZE)
    assert all(torch.equal(loaded.tensors[key], value) for key, value in given.items())


def test_loaded_tensors_can_be_written(store):
    head = store.load(publish(store), size=SIZE).tensors["head.weight"]
    head.add_(1)


def test_no_folder_is_no_adapters(store):
    assert store.names() == ()
    with pytest.raises(UnknownAdapter, match="no adapter 'de'"):
        store.record("de")
    with pytest.raises(UnknownAdapter):
        store.remove("de")


@pytest.mark.parametrize("name", ["../evil", "..", "a/b", "/tmp/evil", ".hidden", "auto", "de\n", ""])
def test_names_cannot_leave_the_folder(store, tmp_path, name):
    for call in (store.record, store.remove, lambda n: publish(store, n)):
        with pytest.raises(AdapterFormatError, match="a name is"):
            call(name)
    assert sorted(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(("changed", "error", "reason"), BAD)
def test_a_bad_publish_changes_nothing(store, changed, error, reason):
    record = publish(store)
    before = files(store)
    with pytest.raises(error, match=reason) as caught:
        publish(store, seed=1, **changed)
    assert caught.value.name == "de"
    assert store.record("de") == record
    assert files(store) == before


def test_another_backbone_by_shape(store):
    record = publish(store, fingerprint=None)
    assert not record.verified
    with pytest.raises(AdapterMismatch, match="of shape"):
        store.load(record, size=replace(SIZE, hidden=32))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff" * 100, b"[]", b" " * (1 << 20) + b"{}", b"[" * 300_000],
    ids=lambda value: repr(value)[:20],
)
def test_bad_records_are_listed_and_refused(store, content):
    publish(store)
    (store.folder / "bad").mkdir()
    (store.folder / "bad" / "adapter.json").write_bytes(content)
    assert store.names() == ("bad", "de")
    with pytest.raises(AdapterFormatError, match=r"adapter\.json"):
        store.record("bad")
    store.record("de")


def make_pipe(path):
    os.mkfifo(path)


def test_records_are_regular_files(store):
    for name, make in (("folder", Path.mkdir), ("pipe", make_pipe), ("loop", lambda path: path.symlink_to(path))):
        (store.folder / name).mkdir(parents=True)
        make(store.folder / name / "adapter.json")
        with pytest.raises(AdapterFormatError):
            store.record(name)
    assert store.names() == ("folder", "loop", "pipe")


def test_a_renamed_folder_is_refused(store):
    publish(store)
    (store.folder / "de").rename(store.folder / "en")
    with pytest.raises(AdapterFormatError, match="is for 'de'"):
        store.record("en")


def test_what_is_not_committed_is_not_there(store):
    publish(store)
    (store.folder / "fr").mkdir()
    (store.folder / "fr" / "weights-0123456789abcdef.safetensors").write_bytes(b"half")
    (store.folder / ".git").mkdir()
    (store.folder / "README").write_text("hello")
    assert store.names() == ("de",)
    with pytest.raises(UnknownAdapter):
        store.record("fr")


def test_links_may_not_leave_the_folder(store, tmp_path):
    elsewhere = AdapterStore(tmp_path / "elsewhere")
    record = publish(elsewhere)
    publish(store, "en", language="en")
    (store.folder / "de").symlink_to(elsewhere.folder / "de")
    with pytest.raises(AdapterFormatError, match="is a link that leaves"):
        store.record("de")
    with pytest.raises(AdapterFormatError, match="is a link that leaves"):
        publish(store)
    with pytest.raises(AdapterFormatError, match="is a link that leaves"):
        store.remove("de")
    assert elsewhere.record("de") == record
    assert store.sweep(grace_s=0.0) == ()

    weights = store.folder / "en" / store.record("en").weights.name
    content = weights.read_bytes()
    weights.unlink()
    (tmp_path / "outside").write_bytes(content)
    weights.symlink_to(tmp_path / "outside")
    with pytest.raises(AdapterFormatError, match="is a link that leaves"):
        store.load(store.record("en"), size=SIZE)


def test_the_store_itself_may_be_a_link(store, tmp_path):
    record = publish(store)
    (tmp_path / "link").symlink_to(store.folder)
    AdapterStore(tmp_path / "link").load(record, size=SIZE)


def test_records_are_plain_json(store):
    publish(store)
    data = json.loads((store.folder / "de" / "adapter.json").read_text())
    assert data["format"] == 1
    assert data["weights"]["file"].startswith("weights-")
    assert AdapterRecord.from_json("de", json.dumps(data)) == store.record("de")


def test_a_sweep_passes_over_what_it_may_not_read(store, monkeypatch, caplog):
    """lost+found of a volume, say."""
    for name in ("de", "fr"):
        publish(store, name, seed=0)
        publish(store, name, seed=1)
    (store.folder / "ee").mkdir()
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "ee":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert {path.parent.name for path in store.sweep(grace_s=-1)} == {"de", "fr"}
    assert "old versions stay" in caplog.text
