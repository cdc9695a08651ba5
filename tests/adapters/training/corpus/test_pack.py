from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from adapters.errors import DataError
from adapters.training.corpus.clip_audio import write_flac
from adapters.training.corpus.pack import INDEX, pack, read_index, unpack
from adapters.training.manifest import Clip, read_manifest, write_manifest
from tests.adapters.training.corpus.small_tree import speech_like


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A manifest of clips of odd lengths, each another sound."""
    clips = []
    for number in range(24):
        path = tmp_path / "corpus" / "audio" / f"{number}.flac"
        samples = speech_like(0.3 + 0.173 * number, number, silence_s=0.12)
        write_flac(path, samples)
        voice = "somebody" if number % 2 else None
        clips.append(Clip(path, len(samples) / 16_000, f"clip {number}", "en", "made", "CC0-1.0", "train", voice))
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", clips)
    return tmp_path / "corpus" / "manifest.jsonl"


def _lag(a: np.ndarray, b: np.ndarray) -> int:
    size = 2 * len(a)
    correlation = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    peak = int(np.argmax(correlation))
    return peak if peak < len(a) else peak - size


def test_there_and_back(corpus: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    files = pack(corpus, tmp_path / "packed", max_file_bytes=60_000, progress=lambda *at: seen.append(at))
    assert len(files) > 1
    assert all(file.stat().st_size <= 60_000 for file in files)
    assert seen[-1] == (24, 24)
    assert sum(file.stat().st_size for file in files) < 0.2 * sum(
        path.stat().st_size for path in corpus.parent.rglob("*.flac")
    )
    manifest = unpack(tmp_path / "packed" / INDEX, tmp_path / "back")
    assert manifest.read_bytes() == corpus.read_bytes()
    for before, after in zip(read_manifest(corpus), read_manifest(manifest, check_files=True), strict=True):
        a, _ = soundfile.read(before.path)
        b, rate = soundfile.read(after.path)
        assert rate == 16_000
        assert len(a) == len(b)
        assert _lag(a, b) == 0, "positions are exact to the sample"
        assert np.corrcoef(a, b)[0, 1] > 0.8


def test_unpacking_goes_on_where_it_stopped(corpus: Path, tmp_path: Path) -> None:
    pack(corpus, tmp_path / "packed", max_file_bytes=60_000)
    manifest = unpack(tmp_path / "packed" / INDEX, tmp_path / "back")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "back").rglob("*.flac")}
    lost = sorted(times)[7]
    content = lost.read_bytes()
    lost.unlink()
    manifest.unlink()
    unpack(tmp_path / "packed" / INDEX, tmp_path / "back")
    assert lost.read_bytes() == content
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path != lost)
    assert manifest.exists()


def test_packing_that_fails_leaves_no_half_file(corpus: Path, tmp_path: Path) -> None:
    last = read_manifest(corpus)[-1].path
    last.write_bytes(b"fLaC")
    with pytest.raises(DataError, match="cannot be read"):
        pack(corpus, tmp_path / "packed")
    assert list((tmp_path / "packed").iterdir()) == []


def test_a_clip_that_is_not_16_khz_is_refused(corpus: Path, tmp_path: Path) -> None:
    path = read_manifest(corpus)[0].path
    soundfile.write(path, np.zeros(8_000), 8_000)
    with pytest.raises(DataError, match="8000 Hz, 1 channels; a corpus is 16000 Hz, 1 channel"):
        pack(corpus, tmp_path / "packed")


def test_a_rate_that_opus_does_not_have_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="16 bit/s: speech in Opus takes 6000 to 64000"):
        pack(corpus, tmp_path / "packed", bits_per_second=16)


def _set(**fields: object) -> Callable[[dict[str, object]], None]:
    return lambda record: record.update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(file="../secret.opus"), "file must be the name of a file beside the index"),
        (_set(file=None), "file must be the name"),
        (_set(path="../../evil.flac"), "the path must lie below the folder"),
        (_set(path="/evil.flac"), "the path must lie below the folder"),
        (_set(start_sample=-1), "start_sample must be a whole number of at least 0, got -1"),
        (_set(samples=True), "samples must be a whole number of at least 1, got True"),
        (_set(samples=10**9), "ends at sample"),
        (_set(file="pack-009.opus"), "cannot be read as Ogg Opus"),
        (lambda record: record.pop("text"), "missing text"),
    ],
)
def test_an_index_that_lies(
    corpus: Path, tmp_path: Path, change: Callable[[dict[str, object]], None], message: str
) -> None:
    pack(corpus, tmp_path / "packed")
    index = tmp_path / "packed" / INDEX
    records = [json.loads(line) for line in index.read_text().splitlines()]
    change(records[3])
    index.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError, match=message):
        unpack(index, tmp_path / "back")
    assert not (tmp_path / "back" / "manifest.jsonl").exists()


def test_overlapping_clips_are_refused_by_name(corpus: Path, tmp_path: Path) -> None:
    pack(corpus, tmp_path / "packed")
    index = tmp_path / "packed" / INDEX
    records = [json.loads(line) for line in index.read_text().splitlines()]
    records[23]["start_sample"] = 0
    index.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert unpack(index, tmp_path / "back").exists(), "the same samples may serve twice"
    assert len(read_index(index)) == 24
