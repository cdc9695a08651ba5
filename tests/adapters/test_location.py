"""What holds of a store wherever it lies: in a folder, in fsspec's memory, in an S3 bucket."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from adapters.errors import (
    AdapterCorrupt,
    AdapterError,
    AdapterFormatError,
    AdapterMismatch,
    PublishConflict,
    StoreAway,
    UnknownAdapter,
)
from adapters.record import AdapterRecord, StoredFile
from adapters.store import AdapterStore
from tests.adapters.places import Faulty, lying, put
from tests.adapters.published import FINGERPRINT, SIZE, VOCAB, publish, tensors


def head(store: AdapterStore, record: AdapterRecord) -> torch.Tensor:
    return store.load(record, size=SIZE).tensors["head.weight"]


def test_what_is_published_is_loaded_and_replaced(anywhere):
    assert anywhere.names() == ()
    with pytest.raises(UnknownAdapter, match="no adapter 'de' in"):
        anywhere.record("de")
    old = publish(anywhere)
    publish(anywhere, "en", language="en")
    assert anywhere.names() == ("de", "en")
    assert anywhere.record("de") == old
    assert anywhere.load(old, size=SIZE).vocab == VOCAB
    new = publish(anywhere, seed=1)
    assert anywhere.record("de") == new != old
    assert torch.equal(head(anywhere, old), tensors(0)["head.weight"]), "who was bound to it may still load it"
    assert torch.equal(head(anywhere, new), tensors(1)["head.weight"])


def test_signatures_change_with_the_record_alone(anywhere):
    publish(anywhere)
    publish(anywhere, "en", language="en")
    before = anywhere.signatures()
    assert anywhere.signatures() == before
    put(anywhere, "de", "notes.txt", b"somebody's")
    assert anywhere.signatures() == before
    publish(anywhere, seed=1)
    after = anywhere.signatures()
    assert after["de"] != before["de"]
    assert after["en"] == before["en"]


def test_removed_is_gone_and_its_files_stay_until_they_are_swept(anywhere):
    record = publish(anywhere)
    kept = publish(anywhere, "en", language="en")
    anywhere.remove("de")
    assert anywhere.names() == ("en",)
    with pytest.raises(UnknownAdapter):
        anywhere.remove("de")
    anywhere.load(record, size=SIZE)
    assert anywhere.sweep(grace_s=60.0) == ()
    assert anywhere.sweep(0.0, keep=[record]) == ()
    deleted = {path.name for path in anywhere.sweep(grace_s=0.0)}
    assert {record.weights.name, record.vocab.name} <= deleted
    assert lying(anywhere) == set()
    anywhere.load(kept, size=SIZE)
    with pytest.raises(AdapterCorrupt, match="is missing"):
        anywhere.load(record, size=SIZE)


def test_a_replaced_version_is_swept_after_its_grace(anywhere):
    old, new = publish(anywhere), publish(anywhere, seed=1)
    assert anywhere.sweep(grace_s=60.0) == ()
    assert [path.name for path in anywhere.sweep(grace_s=0.0)] == [old.weights.name]
    anywhere.load(new, size=SIZE)


def test_what_is_removed_and_published_again_is_swept_like_any_other(anywhere):
    publish(anywhere)
    anywhere.remove("de")
    again = publish(anywhere, seed=1)
    assert anywhere.sweep(grace_s=60.0) == ()
    anywhere.sweep(grace_s=0.0)
    assert lying(anywhere) == {"adapter.json", *(stored.name for stored in again.files.values())}


def test_a_sweep_takes_only_what_a_writer_left(anywhere):
    publish(anywhere)
    put(anywhere, "de", "vocab-00.json", b"torn")
    put(anywhere, "de", "README.md", b"somebody's")
    put(anywhere, "fr", "weights-00.safetensors", b"by one who was killed")
    put(anywhere, "bad", "adapter.json", b"{")
    put(anywhere, "bad", "weights-00.safetensors", b"to be looked at")
    assert anywhere.sweep(grace_s=60.0) == ()
    anywhere.sweep(grace_s=0.0)
    assert len(lying(anywhere)) == 4
    assert "README.md" in lying(anywhere)
    assert lying(anywhere, "fr") == set()
    assert lying(anywhere, "bad") == {"adapter.json", "weights-00.safetensors"}


def staged(store: AdapterStore, elsewhere: AdapterStore, seed: int) -> AdapterRecord:
    record = publish(elsewhere, seed=seed)
    files = {what: elsewhere.location.read("de", file.name, 1 << 20) for what, file in record.files.items()}
    return store.stage("de", record.to_json().encode(), files, size=SIZE, fingerprint=FINGERPRINT)


def test_a_staged_version_is_not_published_before_its_commit(anywhere, store):
    elsewhere = AdapterStore(store.folder / "elsewhere")
    first = staged(anywhere, elsewhere, 0)
    assert anywhere.names() == ()
    anywhere.load(first, size=SIZE)
    anywhere.commit(first, size=SIZE, instead_of="")
    with pytest.raises(PublishConflict):
        anywhere.commit(first, size=SIZE, instead_of="")
    second = staged(anywhere, elsewhere, 1)
    with pytest.raises(PublishConflict, match=f"{first.version} is current, not {second.version}"):
        anywhere.commit(second, size=SIZE, instead_of=second.version)
    assert anywhere.record("de") == first
    anywhere.commit(second, size=SIZE, instead_of=first.version)
    with pytest.raises(PublishConflict):
        anywhere.remove("de", instead_of=first.version)
    anywhere.remove("de", instead_of=second.version)


@pytest.mark.parametrize("done", [False, True], ids=["lost", "unanswered"])
def test_a_publisher_killed_at_any_step_leaves_a_whole_version(anywhere, store, done):
    """The call fails before it does anything, or after; nothing can be done from then on."""
    counted = Faulty(anywhere.location)
    old, new = publish(AdapterStore(counted)), publish(AdapterStore(store.folder / "elsewhere"), seed=1)
    for step in counted.steps():
        with pytest.raises(StoreAway):
            publish(AdapterStore(Faulty(anywhere.location, step, done)), seed=1)
        published = done and step == len(counted.calls) - 1
        assert anywhere.record("de") == (new if published else old), counted.calls[step]
        anywhere.load(anywhere.record("de"), size=SIZE)
    assert counted.calls[-1] == "write"


def test_a_removal_that_is_cut_off_is_swept_up(anywhere):
    record = publish(anywhere)
    with pytest.raises(StoreAway):
        AdapterStore(Faulty(anywhere.location, 0, done=True)).remove("de")
    assert anywhere.names() == ()
    anywhere.load(record, size=SIZE)
    for _ in range(2):  # where nothing tells since when it is so, the first sweep begins to count
        anywhere.sweep(grace_s=0.0)
    assert lying(anywhere) == set()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "is shorter"),
        (lambda content: b"", "is shorter"),
        (lambda content: content + b"x", "were expected"),
        (lambda content: content[:-1] + b"\x7f", "hash"),
    ],
    ids=["truncated", "empty", "longer", "changed"],
)
@pytest.mark.parametrize("which", ["weights", "vocab"])
def test_damaged_files_are_refused_until_they_are_mended(anywhere, damage, reason, which):
    record = publish(anywhere)
    stored = record.files[which]
    put(anywhere, "de", stored.name, damage(anywhere.location.read("de", stored.name, 1 << 20)))
    assert anywhere.record("de") == record
    with pytest.raises(AdapterCorrupt, match=reason):
        anywhere.load(record, size=SIZE)
    publish(anywhere)
    anywhere.load(record, size=SIZE)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 100, b"[]", b" " * (1 << 20) + b"{}"], ids=len)
def test_bad_records_are_listed_and_refused(anywhere, content):
    publish(anywhere)
    put(anywhere, "bad", "adapter.json", content)
    assert anywhere.names() == ("bad", "de")
    with pytest.raises(AdapterFormatError, match=r"adapter\.json"):
        anywhere.record("bad")


@pytest.mark.parametrize("file", ["/etc/passwd", "../en/weights-0.safetensors", "s3://other/x", "http://127.0.0.1/x"])
def test_no_record_names_a_path_or_an_address(anywhere, file):
    told = json.loads(publish(anywhere).to_json())
    told["weights"]["file"] = file
    put(anywhere, "de", "adapter.json", json.dumps(told).encode())
    with pytest.raises(AdapterFormatError, match="of this hash lie in weights-"):
        anywhere.record("de")


@pytest.mark.parametrize("name", ["../evil", "..", "a/b", "s3://other/de", "de?versionId=1", "de#", "", ".hidden"])
def test_no_name_leaves_the_place(anywhere, name):
    publish(anywhere)
    for call in (anywhere.record, anywhere.remove, lambda n: publish(anywhere, n)):
        with pytest.raises(AdapterFormatError, match="a name is"):
            call(name)
    assert anywhere.names() == ("de",)


@pytest.mark.parametrize("what", ["weights", "vocab"])
def test_what_is_too_large_is_not_fetched(anywhere, what):
    record = publish(anywhere)
    size_bytes = 10_000_000_000
    told = json.loads(record.to_json())
    told[what]["bytes"] = size_bytes
    put(anywhere, "de", "adapter.json", json.dumps(told).encode())
    watched = Faulty(anywhere.location)
    store = AdapterStore(watched)
    with pytest.raises(AdapterMismatch, match=f"{what} of {size_bytes} bytes"):
        store.load(store.record("de"), size=SIZE)
    assert watched.calls == ["read"], "the record alone"


def test_a_large_object_under_a_modest_name_is_read_no_further_than_that(anywhere):
    record = publish(anywhere)
    put(anywhere, "de", record.vocab.name, b"x" * 5_000_000)
    with pytest.raises(AdapterCorrupt, match="were expected"):
        anywhere.load(record, size=SIZE)


def test_files_of_another_hash_are_not_taken_in(anywhere):
    record = publish(anywhere)
    other = replace(record, weights=StoredFile.of("weights", "safetensors", b"x"))
    with pytest.raises(AdapterError, match="not the file that adapter"):
        anywhere.stage("de", other.to_json().encode(), {"weights": b"y"}, size=SIZE, fingerprint=FINGERPRINT)
    assert anywhere.record("de") == record


def test_a_record_too_large_to_be_one_is_not_parsed(anywhere, monkeypatch):
    record = publish(anywhere)
    monkeypatch.setattr(AdapterRecord, "from_json", lambda *_: pytest.fail("it is parsed"))
    with pytest.raises(AdapterFormatError, match="a record of 1048577 bytes; 1048576 are allowed"):
        anywhere.stage("de", b" " * ((1 << 20) + 1), {}, size=SIZE, fingerprint=record.fingerprint or "")
