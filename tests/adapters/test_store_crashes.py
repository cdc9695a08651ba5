"""Full disks, killed writers, and many at once: a version is whole or not there."""

import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from adapters import folder as folder_module
from adapters.durable import write_whole
from adapters.errors import (
    AdapterCorrupt,
    UnknownAdapter,
)
from adapters.store import AdapterStore
from tests.adapters.published import SIZE, files, publish

ROOT = Path(__file__).parents[2]


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
    store.load(store.record("de"), size=SIZE)
    assert not any(name.startswith(".") for name in files(store))


def test_remove_and_sweep(store):
    record = publish(store)
    kept = publish(store, "en", language="en")
    store.remove("de")
    assert store.names() == ("en",)
    store.load(record, size=SIZE)  # who was bound to it before may still load it
    assert store.sweep(grace_s=60.0) == ()
    assert kept.vocab.name == record.vocab.name
    deleted = store.sweep(grace_s=0.0, keep=[kept])
    assert {path.name for path in deleted} == {record.weights.name, record.vocab.name, "de"}
    assert not (store.folder / "de").exists()
    store.load(kept, size=SIZE)
    with pytest.raises(UnknownAdapter):
        store.remove("de")


def test_grace_counts_from_when_a_version_was_replaced(store):
    old = publish(store)
    month_ago = time.time() - 30 * 86400
    for path in (store.folder / "de", *(store.folder / "de").iterdir()):
        os.utime(path, (month_ago, month_ago))
    new = publish(store, seed=1)
    assert store.sweep(grace_s=60.0) == ()
    store.load(old, size=SIZE)
    assert [path.name for path in store.sweep(grace_s=0.0)] == [old.weights.name]
    store.load(new, size=SIZE)


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
    store.load(record, size=SIZE)


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
        store.load(record, size=SIZE)

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

    monkeypatch.setattr(folder_module, "write_whole", write_beside_a_sweep)
    records = [publish(store, seed=seed) for seed in range(2)]
    for sweep in sweeps:
        sweep.join()
    store.load(records[1], size=SIZE)


def test_what_was_written_is_read_before_it_is_named(store, monkeypatch):
    record = publish(store)
    write = write_whole
    monkeypatch.setattr(folder_module, "write_whole", lambda path, content: write(path, content[:-1] + b"?"))
    with pytest.raises(AdapterCorrupt):
        publish(store, seed=1)
    assert store.record("de") == record


def kill_publishers(folder, rounds, seed):
    command = [sys.executable, "-m", "tests.adapters.killed_publisher", str(folder), str(rounds), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_publisher_killed_at_any_instant_leaves_a_whole_version(tmp_path):
    assert kill_publishers(tmp_path, 60, seed=0) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_publishers_killed(tmp_path, seed):
    assert kill_publishers(tmp_path, 2000, seed) > 0
