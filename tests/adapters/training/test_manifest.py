from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import DataError
from adapters.training.manifest import Clip, clips_key, read_manifest, write_manifest

GOOD = {
    "path": "audio/a.flac",
    "seconds": 1.5,
    "text": "où ça",
    "language": "fr",
    "source": "made",
    "licence": "CC0-1.0",
    "split": "dev",
}


def _write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_there_and_back(tmp_path: Path) -> None:
    clip = Clip(tmp_path / "audio" / "a.flac", 1.5, "où ça", "fr", "made", "CC0-1.0", "dev")
    clips = [clip, replace(clip, path=tmp_path / "b.flac", voice="june"), replace(clip, path=Path("/elsewhere/c.flac"))]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    assert read_manifest(tmp_path / "manifest.jsonl") == clips
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == GOOD
    assert "où ça" in lines[0]
    assert json.loads(lines[2])["path"] == "/elsewhere/c.flac"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]


def test_relative_paths_and_a_manifest_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = Clip(Path("out/audio/a.flac"), 1.5, "a", "fr", "made", "CC0-1.0", "dev")
    write_manifest(Path("out/manifest.jsonl"), [clip])
    assert json.loads(Path("out/manifest.jsonl").read_text())["path"] == "audio/a.flac"
    assert read_manifest(Path("out/manifest.jsonl")) == [clip]
    write_manifest(Path("manifest.jsonl"), [clip])
    assert read_manifest(Path("manifest.jsonl")) == [clip]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "expected a JSON object, got list"),
        ({**GOOD, "seconds": 0}, "seconds must be a positive number, got 0"),
        ({**GOOD, "seconds": True}, "seconds must be a positive number, got True"),
        ({**GOOD, "seconds": float("nan")}, "seconds must be a positive number, got nan"),
        ({**GOOD, "seconds": "1"}, "seconds must be a positive number, got '1'"),
        ({**GOOD, "seconds": 10**400}, "seconds must be a positive number, got 1000"),
        ({**GOOD, "text": "a\ud800"}, r"text has a character in it that no text has: 'a\\ud800'"),
        ({**GOOD, "path": "a\0.flac"}, "path has a character in it that no text has"),
        ({**GOOD, "language": "no such language"}, "language must be a tag, such as 'de', got 'no such language'"),
        ({**GOOD, "text": " "}, "text must be a text that is not empty"),
        ({**GOOD, "language": 3}, "language must be a text that is not empty, got 3"),
        ({**GOOD, "split": "valid"}, "split must be one of train, dev, test, got 'valid'"),
        ({**GOOD, "voice": 1}, "voice must be a text that is not empty, or left out"),
        ({**GOOD, "speaker": "x"}, "unknown speaker; known are language, licence"),
        ({key: value for key, value in GOOD.items() if key not in ("text", "split")}, "missing split, text"),
        (GOOD, "is listed already at .*:1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, record: object, message: str) -> None:
    path = _write(tmp_path / "m.jsonl", GOOD, record)
    with pytest.raises(DataError, match=rf"m\.jsonl:2: .*{message}"):
        read_manifest(path)


def test_texts_are_composed_and_a_mark_of_byte_order_is_passed_over(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", {**GOOD, "text": "où".replace("ù", "u\u0300")})
    path.write_text(path.read_text(), encoding="utf-8-sig")
    (clip,) = read_manifest(path)
    assert clip.text == "où"


def test_white_space_between_words_is_one_space(tmp_path: Path) -> None:
    """Or whoever writes by hand has a word that nobody can hear: what is heard has single spaces."""
    texts = ["où\u00a0ça", "  où  ça", "où\tça\n", "où \u3000\u2009ça "]
    write_manifest(tmp_path / "clean.jsonl", [Clip(Path("a.flac"), 1.5, "où ça", "fr", "made", "CC0-1.0", "dev")])
    path = _write(tmp_path / "m.jsonl", *({**GOOD, "path": f"{n}", "text": text} for n, text in enumerate(texts)))
    assert {clip.text for clip in read_manifest(path)} == {"où ça"}
    clips = [replace(clip, path=Path("a.flac")) for clip in read_manifest(path)]
    assert {clips_key([clip]) for clip in clips} == {clips_key(read_manifest(tmp_path / "clean.jsonl"))}


def test_what_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.jsonl: no such file; `tongues data build"):
        read_manifest(tmp_path / "m.jsonl")
    path = _write(tmp_path / "m.jsonl", GOOD)
    path.write_text(path.read_text() + "\n{oops\n")
    with pytest.raises(DataError, match=r"m\.jsonl:3: not a line of JSON"):
        read_manifest(path)
    for line in ("[" * 100_000, '{"seconds": ' + "1" * 5_000 + "}"):
        path.write_text(line)
        with pytest.raises(DataError, match=r"m\.jsonl:1: not a line of JSON"):
            read_manifest(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not readable as UTF-8"):
        read_manifest(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="no clips in it"):
        read_manifest(path)


def test_missing_files_are_named_on_request(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", GOOD)
    assert len(read_manifest(path)) == 1
    with pytest.raises(DataError, match=r"m\.jsonl:1: no such file: .*a\.flac"):
        read_manifest(path, check_files=True)


def test_a_key_stands_for_the_clips_and_nothing_else(tmp_path: Path) -> None:
    one = Clip(tmp_path / "a.flac", 1.5, "où ça", "fr", "made", "CC0-1.0", "dev")
    other = replace(one, path=tmp_path / "b.flac")
    key = clips_key([one, other])
    assert clips_key([other, replace(one, path=Path("/elsewhere/a.flac"))]) == key
    changes: list[dict[str, Any]] = [{"text": "là"}, {"split": "test"}, {"seconds": 1.6}, {"language": "it"}]
    assert len({key, clips_key([one])} | {clips_key([replace(one, **change), other]) for change in changes}) == 6
