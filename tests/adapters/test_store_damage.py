"""Files that were damaged, or that were never an adapter: noticed before they are worn."""

import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import (
    AdapterCorrupt,
    AdapterError,
    AdapterFormatError,
    AdapterMismatch,
)
from tests.adapters.published import BAD, SIZE, place, publish, tensors

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is shorter"),
        (lambda path: path.write_bytes(b""), "is shorter"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "were expected"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), "hash"),
        (lambda path: path.unlink() or path.mkdir(), "not a regular file"),
    ],
)
@pytest.mark.parametrize("which", ["weights", "vocab"])
def test_damaged_files_are_refused(store, damage, reason, which):
    record = publish(store)
    damage(store.folder / "de" / getattr(record, which).name)
    assert store.record("de") == record
    with pytest.raises(AdapterCorrupt, match=reason):
        store.load(record, size=SIZE)


def test_publishing_again_repairs(store):
    record = publish(store)
    (store.folder / "de" / record.weights.name).write_bytes(b"torn")
    assert publish(store) == record
    store.load(record, size=SIZE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_byte_is_noticed(store, data):
    record = store.record("de") if store.names() else publish(store)
    path = store.folder / "de" / record.weights.name
    content = bytearray(safetensors.torch.save(tensors()))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(AdapterCorrupt):
        store.load(record, size=SIZE)


class Evil:
    """Runs on unpickling."""

    def __reduce__(self):
        return (os.mkdir, (str(ROOT / "unpickled"),))


def pickled():
    return pickle.dumps(Evil())


def torch_saved(folder):
    torch.save({"head.weight": torch.zeros(2), "evil": Evil()}, folder / "x.pt")
    return (folder / "x.pt").read_bytes()


def test_pickle_is_never_read(store, tmp_path):
    record = publish(store)
    for content in (pickled(), torch_saved(tmp_path)):
        offered = place(store, record, weights=content)
        with pytest.raises(AdapterFormatError, match="is not safetensors"):
            store.load(offered, size=SIZE)
    with pytest.raises(AdapterFormatError, match="vocab"):
        store.load(place(store, record, vocab=pickled()), size=SIZE)
    assert not (ROOT / "unpickled").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=60), body=st.binary(max_size=60))
def test_any_weights_are_refused(store, header, body):
    record = store.record("de") if store.names() else publish(store)
    for content in (header + body, len(header).to_bytes(8, "little") + header + body):
        with pytest.raises(AdapterError):
            store.load(place(store, record, weights=content), size=SIZE)


@pytest.mark.parametrize(("changed", "error", "reason"), [bad for bad in BAD if "tensors" in bad[0]])
def test_bad_tensors_with_honest_hashes_are_refused(store, changed, error, reason):
    record = publish(store)
    content = safetensors.torch.save(changed["tensors"])
    with pytest.raises(error, match=reason if changed["tensors"] else "missing"):
        store.load(place(store, record, weights=content), size=SIZE)


@pytest.mark.parametrize(
    "vocab", [b"", b"{}", b"\xff", b'{"a": 0}', b'{"<pad>": 0}', b"[" * 100_000], ids=lambda value: repr(value)[:20]
)
def test_bad_vocabularies_with_honest_hashes_are_refused(store, vocab):
    record = place(store, publish(store), vocab=vocab)
    with pytest.raises((AdapterFormatError, AdapterMismatch), match="vocab"):
        store.load(record, size=SIZE)
