import json
import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import store as store_module
from adapters.durable import write_whole
from adapters.errors import (
    AdapterCorrupt,
    AdapterError,
    AdapterFormatError,
    AdapterMismatch,
    UnknownAdapter,
)
from adapters.record import AdapterRecord, StoredFile
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from tests.adapters.published import CONFIG, SIZES, VOCAB, publish, tensors

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "adapters")


def files(store, name="de"):
    return {path.name for path in (store.folder / name).iterdir()}


def place(store, record, weights=None, vocab=None):
    """Put files on disk as a careless or hostile writer would: the record names what is there, unchecked."""
    if weights is not None:
        record = replace(record, weights=StoredFile.of("weights", "safetensors", weights))
        (store.folder / record.name / record.weights.name).write_bytes(weights)
    if vocab is not None:
        record = replace(record, vocab=StoredFile.of("vocab", "json", vocab))
        (store.folder / record.name / record.vocab.name).write_bytes(vocab)
    (store.folder / record.name / "adapter.json").write_text(record.to_json())
    return store.record(record.name)


def test_what_is_published_is_loaded(store):
    metrics = {"test": {"wer": 0.25, "cer": 0.06}}
    record = publish(store, default=True, metrics=metrics, training={"steps": 3}, licence="CC0-1.0", synthetic=True)
    assert store.names() == ("de",)
    assert store.record("de") == record
    assert (record.language, record.dtype, record.default, record.synthetic) == ("de", "float16", True, True)
    assert record.metrics == metrics
    loaded = store.load(record, **SIZES)
    assert loaded.record == record
    assert loaded.vocab == VOCAB
    assert loaded.tensors.keys() == tensors().keys()
    assert all(torch.equal(loaded.tensors[key], value) for key, value in tensors().items())
    assert files(store) == {"adapter.json", record.weights.name, record.vocab.name}


def test_nothing_is_shared_with_the_publisher(store):
    training = {"steps": [1]}
    record = publish(store, training=training)
    training["steps"].append(2)
    assert record.training == {"steps": [1]}


def test_the_old_version_stays_loadable(store):
    old, new = publish(store, seed=0), publish(store, seed=1)
    assert old.version != new.version
    assert store.record("de").version == new.version
    assert torch.equal(store.load(old, **SIZES).tensors["head.weight"], tensors(0)["head.weight"])
    assert torch.equal(store.load(new, **SIZES).tensors["head.weight"], tensors(1)["head.weight"])


def test_equal_adapters_are_equal_versions(store, tmp_path):
    assert publish(store).version == publish(AdapterStore(tmp_path / "elsewhere")).version


def test_views_and_gradients_are_published_by_value(store):
    given = {key: torch.nn.Parameter(value.float().repeat_interleave(2, 0)[::2]) for key, value in tensors().items()}
    record = publish(store, tensors=given)
    assert record.dtype == "float32"
    loaded = store.load(record, **SIZES)
    assert all(torch.equal(loaded.tensors[key], value) for key, value in given.items())


def test_loaded_tensors_can_be_written(store):
    head = store.load(publish(store), **SIZES).tensors["head.weight"]
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


def without_head():
    return {key: value for key, value in tensors().items() if key != "head.weight"}


def with_nan(value):
    given = tensors()
    next(iter(given.values())).view(-1)[0] = value
    return given


BAD = [
    ({"tensors": without_head()}, AdapterMismatch, "'head.weight' is missing"),
    ({"tensors": {**tensors(), "evil": torch.zeros(1)}}, AdapterMismatch, "'evil' has no place"),
    ({"tensors": {**tensors(), "head.weight": torch.zeros(3, 3).half()}}, AdapterMismatch, "head.weight is of shape"),
    ({"tensors": {**tensors(), "head.weight": tensors()["head.weight"].float()}}, AdapterMismatch, "float32"),
    ({"tensors": {key: value.to(torch.int8) for key, value in tensors().items()}}, AdapterMismatch, "int8"),
    ({"tensors": with_nan(float("nan"))}, AdapterFormatError, "NaN"),
    ({"tensors": with_nan(float("inf"))}, AdapterFormatError, "infinity"),
    ({"tensors": {}}, AdapterMismatch, "none"),
    ({"vocab": Vocab.from_texts(["ab"])}, AdapterMismatch, "tokens in the vocabulary"),
    ({"hidden_size": 32}, AdapterMismatch, "is of shape"),
    ({"config": replace(CONFIG, layers=(1, 3))}, AdapterMismatch, "is missing|has no place"),
    ({"config": replace(CONFIG, method="telepathy")}, AdapterMismatch, "fits the backbone"),
    ({"language": "Elvish"}, AdapterFormatError, "tag of a language"),
    ({"training": {"x": object()}}, AdapterFormatError, "JSON"),
    ({"training": {"x": float("nan")}}, AdapterFormatError, "JSON"),
    ({"training": {"x": "y" * 2_000_000}}, AdapterFormatError, "record of"),
    ({"metrics": {"test": {"wer": -0.1}}}, AdapterFormatError, "metrics"),
]


@pytest.mark.parametrize(("changed", "error", "reason"), BAD)
def test_a_bad_publish_changes_nothing(store, changed, error, reason):
    record = publish(store)
    before = files(store)
    with pytest.raises(error, match=reason) as caught:
        publish(store, seed=1, **changed)
    assert caught.value.name == "de"
    assert store.record("de") == record
    assert files(store) == before


@pytest.mark.parametrize("step", range(12))
def test_a_full_disk_at_any_step_leaves_a_whole_version(store, tmp_path, monkeypatch, step):
    old, new = publish(store), publish(AdapterStore(tmp_path / "elsewhere"), seed=1)
    calls = iter(range(1000))

    def failing(real):
        def call(*args):
            if next(calls) == step:
                raise OSError(28, "No space left on device")
            return real(*args)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(os.fsync))
        patched.setattr(Path, "replace", failing(Path.replace))
        with nullcontext() if step > 9 else pytest.raises(OSError, match="No space"):
            publish(store, seed=1)
    assert store.record("de") == (old if step < 9 else new)  # the ninth step syncs what has just been named
    store.load(store.record("de"), **SIZES)
    assert not any(name.startswith(".") for name in files(store))


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
        store.load(record, **SIZES)


def test_publishing_again_repairs(store):
    record = publish(store)
    (store.folder / "de" / record.weights.name).write_bytes(b"torn")
    assert publish(store) == record
    store.load(record, **SIZES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_byte_is_noticed(store, data):
    record = store.record("de") if store.names() else publish(store)
    path = store.folder / "de" / record.weights.name
    content = bytearray(safetensors.torch.save(tensors()))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(AdapterCorrupt):
        store.load(record, **SIZES)


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
            store.load(offered, **SIZES)
    with pytest.raises(AdapterFormatError, match="vocab"):
        store.load(place(store, record, vocab=pickled()), **SIZES)
    assert not (ROOT / "unpickled").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=60), body=st.binary(max_size=60))
def test_any_weights_are_refused(store, header, body):
    record = store.record("de") if store.names() else publish(store)
    for content in (header + body, len(header).to_bytes(8, "little") + header + body):
        with pytest.raises(AdapterError):
            store.load(place(store, record, weights=content), **SIZES)


@pytest.mark.parametrize(("changed", "error", "reason"), [bad for bad in BAD if "tensors" in bad[0]])
def test_bad_tensors_with_honest_hashes_are_refused(store, changed, error, reason):
    record = publish(store)
    content = safetensors.torch.save(changed["tensors"])
    with pytest.raises(error, match=reason if changed["tensors"] else "missing"):
        store.load(place(store, record, weights=content), **SIZES)


@pytest.mark.parametrize(
    "vocab", [b"", b"{}", b"\xff", b'{"a": 0}', b'{"<pad>": 0}', b"[" * 100_000], ids=lambda value: repr(value)[:20]
)
def test_bad_vocabularies_with_honest_hashes_are_refused(store, vocab):
    record = place(store, publish(store), vocab=vocab)
    with pytest.raises((AdapterFormatError, AdapterMismatch), match="vocab"):
        store.load(record, **SIZES)


def test_another_backbone_by_shape(store):
    record = publish(store, fingerprint=None)
    assert not record.verified
    with pytest.raises(AdapterMismatch, match="of shape"):
        store.load(record, hidden_size=32, layer_count=4)


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
        store.load(store.record("en"), **SIZES)


def test_the_store_itself_may_be_a_link(store, tmp_path):
    record = publish(store)
    (tmp_path / "link").symlink_to(store.folder)
    AdapterStore(tmp_path / "link").load(record, **SIZES)


def test_remove_and_sweep(store):
    record = publish(store)
    kept = publish(store, "en", language="en")
    store.remove("de")
    assert store.names() == ("en",)
    store.load(record, **SIZES)  # who was bound to it before may still load it
    assert store.sweep(grace_s=60.0) == ()
    deleted = store.sweep(grace_s=0.0)
    assert {path.name for path in deleted} == {record.weights.name, record.vocab.name, "de"}
    assert not (store.folder / "de").exists()
    store.load(kept, **SIZES)
    with pytest.raises(UnknownAdapter):
        store.remove("de")


def test_grace_counts_from_when_a_version_was_replaced(store):
    old = publish(store)
    month_ago = time.time() - 30 * 86400
    for path in (store.folder / "de", *(store.folder / "de").iterdir()):
        os.utime(path, (month_ago, month_ago))
    new = publish(store, seed=1)
    assert store.sweep(grace_s=60.0) == ()
    store.load(old, **SIZES)
    assert [path.name for path in store.sweep(grace_s=0.0)] == [old.weights.name]
    store.load(new, **SIZES)


def test_sweep_takes_only_what_a_writer_left(store):
    record = publish(store)
    folder = store.folder / "de"
    for name in (".adapter.json.0123456789abcdef", ".weights-00.safetensors.0123456789abcdef", "vocab-00.json"):
        (folder / name).write_bytes(b"torn")
    for name in ("README.md", "notes.txt", "weights.safetensors"):
        (folder / name).write_bytes(b"somebody's")
    (store.folder / "bad").mkdir()
    (store.folder / "bad" / "adapter.json").write_bytes(b"{")
    (store.folder / "bad" / "weights-00.safetensors").write_bytes(b"to be looked at")
    assert len(store.sweep(grace_s=0.0)) == 3
    assert {"README.md", "notes.txt", "weights.safetensors", "adapter.json"} < files(store)
    assert len(files(store, "bad")) == 2
    store.load(record, **SIZES)


def test_writers_readers_and_sweepers_at_once(store):
    versions = {publish(store, seed=seed).version for seed in range(3)}
    failures = []
    stop = threading.Event()

    def until_stopped(work):
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            failures.append(error)

    def read():
        record = store.record("de")
        assert record.version in versions
        store.load(record, **SIZES)

    work = [lambda seed=seed: publish(store, seed=seed) for seed in range(3)]
    threads = [threading.Thread(target=until_stopped, args=(w,)) for w in (*work, read, lambda: store.sweep(60.0))]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    store.sweep(grace_s=0.0)
    assert len(files(store)) == 3
    read()


def test_a_sweep_takes_nothing_that_is_about_to_be_named(store, monkeypatch):
    write = write_whole
    sweeps = []

    def write_beside_a_sweep(path, content):
        write(path, content)
        if path.name.startswith("vocab-"):
            sweeps.append(threading.Thread(target=store.sweep, args=(0.0,)))
            sweeps[-1].start()
            sweeps[-1].join(0.2)
            assert sweeps[-1].is_alive(), "it waits until the publish is through"

    monkeypatch.setattr(store_module, "write_whole", write_beside_a_sweep)
    records = [publish(store, seed=seed) for seed in range(2)]
    for sweep in sweeps:
        sweep.join()
    store.load(records[1], **SIZES)


def test_what_was_written_is_read_before_it_is_named(store, monkeypatch):
    record = publish(store)
    write = write_whole
    monkeypatch.setattr(store_module, "write_whole", lambda path, content: write(path, content[:-1] + b"?"))
    with pytest.raises(AdapterCorrupt):
        publish(store, seed=1)
    assert store.record("de") == record


def kill_publishers(folder, rounds, seed):
    command = [sys.executable, "-m", "tests.adapters.killed_publisher", str(folder), str(rounds), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_publisher_killed_at_any_instant_leaves_a_whole_version(tmp_path):
    assert kill_publishers(tmp_path, 15, seed=0) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_publishers_killed(tmp_path, seed):
    assert kill_publishers(tmp_path, 2000, seed) > 0


def test_records_are_plain_json(store):
    publish(store)
    data = json.loads((store.folder / "de" / "adapter.json").read_text())
    assert data["format"] == 1
    assert data["weights"]["file"].startswith("weights-")
    assert AdapterRecord.from_json("de", json.dumps(data)) == store.record("de")
