"""Recordings of one's own: real speech, in the formats and the tables that people have."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from adapters.errors import DataError
from adapters.training.corpus.report import make_report, read_left_out
from adapters.training.corpus.table import import_table
from adapters.training.corpus.text import UnusableText, normalise_any
from adapters.training.data import AudioCache
from adapters.training.manifest import read_manifest

EXAMPLES = Path(__file__).parents[4] / "examples"
LETTERS = "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Thirteen recordings in several formats and rates, a second of silence around each."""
    folder = tmp_path / "given"
    folder.mkdir()
    for number, path in enumerate(sorted(EXAMPLES.glob("*.ogg"))):
        samples, rate = soundfile.read(path, dtype="float32")
        kind, wanted, channels = [("wav", 44_100, 2), ("flac", 48_000, 1), ("ogg", 16_000, 1), ("mp3", 22_050, 1)][
            number % 4
        ]
        samples = np.pad(soxr.resample(samples, rate, wanted), wanted)
        soundfile.write(folder / f"{path.stem} é.{kind}", np.stack([samples] * channels, axis=1), wanted)
    return folder


def sentence(number: int) -> str:
    return f"{LETTERS[number : number + 2]}ა, {LETTERS[number + 2]}ემა!  {LETTERS[3:9]} {LETTERS[number : number + 8]}."


def listed(folder: Path, *, delimiter: str = ",", columns: tuple[str, str] = ("path", "text")) -> list[dict[str, str]]:
    paths = sorted(path for path in folder.iterdir() if path.suffix != ".txt")
    return [{columns[0]: path.name, columns[1]: sentence(number)} for number, path in enumerate(paths)]


def written(table: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with table.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(
            file,
            list(rows[0]),
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if delimiter != "\t" else csv.QUOTE_NONE,
            escapechar=None if delimiter != "\t" else "\\",
        )
        writer.writeheader()
        writer.writerows(rows)
    return table


@pytest.mark.parametrize(
    ("delimiter", "encoding", "columns"),
    [
        (",", "utf-8", ("path", "text")),
        (";", "utf-8-sig", ("File", "Transcript")),
        ("\t", "utf-8", ("path", "sentence")),
    ],
)
def test_a_table_becomes_a_corpus_that_can_be_trained_on(
    recordings: Path, tmp_path: Path, delimiter: str, encoding: str, columns: tuple[str, str]
) -> None:
    table = written(recordings / "list.txt", listed(recordings, columns=columns), delimiter, encoding)
    report, rejects = import_table(table, tmp_path / "out", "kat", licence="CC0-1.0", workers=1)
    assert rejects == []
    clips = read_manifest(tmp_path / "out/manifest.jsonl", check_files=True)
    assert len(clips) == len(list(EXAMPLES.glob("*.ogg"))) == sum(report["ka"].clips.values())
    assert {clip.language for clip in clips} == {"ka"}
    assert {clip.split for clip in clips} == {"train", "dev", "test"}
    assert {clip.licence for clip in clips} == {"CC0-1.0"}
    assert set("".join(clip.text for clip in clips)) <= {*LETTERS, " "}
    cache = AudioCache(clips, tmp_path / "out/cache")
    for number, clip in enumerate(clips):
        assert cache.length(number) == pytest.approx(clip.seconds * 16_000, abs=1)
    given = sum(soundfile.info(path).duration for path in EXAMPLES.glob("*.ogg"))
    assert sum(clip.seconds for clip in clips) == pytest.approx(given, rel=0.15), "without the silence around"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").rglob("*.flac")}
    import_table(table, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").rglob("*.flac")} == before


def test_a_folder_with_texts_and_another_language_beside(recordings: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(recordings.iterdir())):
        path.with_suffix(".txt").write_text(sentence(number), encoding="utf-8-sig")
    import_table(recordings, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    import_table(recordings, tmp_path / "out", "xmf", licence="CC-BY-4.0", source="field", workers=1)
    clips = read_manifest(tmp_path / "out/manifest.jsonl")
    assert {(clip.language, clip.licence, clip.source) for clip in clips} == {
        ("ka", "CC0-1.0", "own"),
        ("xmf", "CC-BY-4.0", "field"),
    }


def test_what_is_left_out_is_named(recordings: Path, tmp_path: Path) -> None:
    rows = listed(recordings)
    rows[0]["text"] = "12 კაცი"
    rows[1]["text"] = "..."
    rows[2]["path"] = "gone.wav"
    (recordings / "broken.wav").write_bytes(b"RIFF")
    rows[3]["path"] = "broken.wav"
    rows[4]["text"] = LETTERS * 20
    shutil.copy(recordings / rows[6]["path"], recordings / "again.wav")
    rows += [{"path": "again.wav", "text": rows[6]["text"]}, dict(rows[5])]
    table = written(recordings / "list.csv", rows)
    report, rejects = import_table(table, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    told = {int(where.rpartition(":")[2]): reason for where, reason in rejects}
    assert told == {
        2: "digits",
        3: "empty text",
        4: "missing audio",
        5: "not decodable",
        6: "text too long for its clip",
        15: "duplicate",
        16: "listed twice",
    }
    assert report["ka"].rejects.total() == 7
    assert sum(report["ka"].clips.values()) == len(rows) - 7
    written_down = [json.loads(line) for line in (tmp_path / "out/left-out.jsonl").read_text().splitlines()]
    assert [(one["where"], one["reason"]) for one in written_down] == rejects
    assert {(one["language"], one["source"]) for one in written_down} == {("ka", "own")}


def test_of_two_rows_with_one_recording_the_one_that_is_left_out_is_named(recordings: Path, tmp_path: Path) -> None:
    """However the second has it: as an absolute path, or as a copy of the same name in another folder."""
    rows = listed(recordings)
    (recordings / "sub").mkdir()
    for row in rows[1:3]:
        shutil.copy(recordings / row["path"], recordings / "sub" / row["path"])
    rows += [
        {**rows[0], "path": str(recordings / rows[0]["path"])},
        {**rows[1], "path": f"sub/{rows[1]['path']}"},
        {"path": f"sub/{rows[2]['path']}", "text": sentence(20)},
    ]
    table = written(recordings / "list.csv", rows)
    _, rejects = import_table(table, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    last = len(rows) + 1
    assert [(int(where.rpartition(":")[2]), reason) for where, reason in rejects] == [
        (4, "one sound, several texts"),
        (last - 2, "listed twice"),
        (last - 1, "duplicate"),
        (last, "one sound, several texts"),
    ]


def test_names_that_the_system_does_not_take_are_left_out(recordings: Path, tmp_path: Path) -> None:
    rows = [*listed(recordings), {"path": "a" * 300 + ".wav", "text": "ა"}]
    table = written(recordings / "list.csv", rows)
    _, rejects = import_table(table, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    assert rejects == [(f"{table}:{len(rows) + 1}", "missing audio")]


def test_where_nothing_can_be_used_the_first_are_named_and_all_are_written(recordings: Path, tmp_path: Path) -> None:
    rows = listed(recordings)
    good = written(recordings / "good.csv", rows)
    import_table(good, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    table = written(
        recordings / "list.csv", [{**row, "text": "12"} for row in rows[1:]] + [{**rows[0], "path": "gone"}]
    )
    with pytest.raises(DataError) as caught:
        import_table(table, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    refused = tmp_path / "out/refused.jsonl"
    first = "".join(f"; {table}:{line}: digits" for line in range(2, 7))
    said = f"none of {len(rows)} recordings can be used: digits ({len(rows) - 1}), missing audio (1){first}"
    assert str(caught.value) == f"{table}: {said}; and {len(rows) - 5} more, all listed in {refused}"
    assert len(refused.read_text().splitlines()) == len(rows)
    assert {path: path.read_bytes() for path in before} == before, "what was there stays, and what is said of it"
    import_table(good, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    assert not refused.exists()


@pytest.mark.parametrize("licence", ["", " ", "CC0-1.0\nMIT"])
def test_a_licence_that_no_manifest_can_name_is_refused_before_anything(tmp_path: Path, licence: str) -> None:
    with pytest.raises(DataError, match="a licence is named in SPDX's words"):
        import_table(tmp_path / "nowhere.csv", tmp_path / "out", "ka", licence=licence)


@pytest.mark.parametrize("source", ["", " ", ".", "..", "a/../../b", "a\\b", "own,other", "a\0b", "x" * 101])
def test_a_source_that_can_name_no_folder_is_refused_before_anything(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError, match="a source is a short name"):
        import_table(tmp_path / "nowhere.csv", tmp_path / "out", "ka", licence="CC0-1.0", source=source)


def test_white_space_around_a_source_and_a_licence_is_none_of_them(recordings: Path, tmp_path: Path) -> None:
    table = written(recordings / "list.csv", listed(recordings))
    import_table(table, tmp_path / "out", "ka", licence=" CC0-1.0 ", source=" anna ", workers=1)
    clips = read_manifest(tmp_path / "out/manifest.jsonl", check_files=True)
    assert {(clip.licence, clip.source) for clip in clips} == {("CC0-1.0", "anna")}


def test_the_table_may_say_the_split_and_the_voice(recordings: Path, tmp_path: Path) -> None:
    rows = [
        {**row, "split": ["train", "validation", "test"][number % 3], "speaker": f"v{number % 2}"}
        for number, row in enumerate(listed(recordings))
    ]
    import_table(written(recordings / "list.csv", rows), tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    clips = read_manifest(tmp_path / "out/manifest.jsonl")
    assert {clip.text: clip.split for clip in clips} == {
        normalise_any(row["text"], "ka"): {"validation": "dev"}.get(row["split"], row["split"]) for row in rows
    }
    assert {clip.voice for clip in clips} == {"v0", "v1"}


def test_a_split_that_is_told_of_some_holds_for_all_recordings_of_a_text(recordings: Path, tmp_path: Path) -> None:
    rows = listed(recordings)
    for number in range(6):
        rows[number]["split"] = ["train", "dev", "test"][number % 3]
        rows[number + 6]["text"] = rows[number]["text"]
    import_table(written(recordings / "list.csv", rows), tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    placed: dict[str, set[str]] = {}
    for clip in read_manifest(tmp_path / "out/manifest.jsonl"):
        placed.setdefault(clip.text, set()).add(clip.split)
    for number in range(6):
        assert placed[normalise_any(rows[number]["text"], "ka")] == {["train", "dev", "test"][number % 3]}


def test_another_source_is_added(recordings: Path, tmp_path: Path) -> None:
    """Its texts lie where they lay, and what is there already is not there twice."""
    rows = listed(recordings)
    first = written(recordings / "first.csv", [*rows[:7], {**rows[7], "text": "5"}])
    import_table(first, tmp_path / "out", "ka", licence="CC0-1.0", source="anna", workers=1)
    before = read_manifest(tmp_path / "out/manifest.jsonl")
    more = [{**row, "text": rows[number]["text"]} for number, row in enumerate(rows[7:])]
    second = written(recordings / "second.csv", [*more, rows[0]])
    broken_off = tmp_path / "out/audio/ka/anna/.x.flac.1.tmp"
    broken_off.touch()
    report, rejects = import_table(second, tmp_path / "out", "ka", licence="CC0-1.0", source="ben", workers=1)
    assert [reason for _, reason in rejects] == ["there already, from another source"]
    assert not broken_off.exists()
    clips = read_manifest(tmp_path / "out/manifest.jsonl")
    assert [clip for clip in clips if clip.source == "anna"] == before
    assert len(clips) == 7 + len(more)
    assert len({(clip.text, clip.split) for clip in clips}) == len({clip.text for clip in clips}) == 7
    assert report == make_report(clips, [("ka", "digits"), ("ka", "there already, from another source")])
    written_down = read_left_out(tmp_path / "out/left-out.jsonl")
    assert [(one.source, one.where) for one in written_down] == [("anna", f"{first}:9"), ("ben", rejects[0][0])]
    report, _ = import_table(first, tmp_path / "out", "ka", licence="CC0-1.0", source="anna", workers=1)
    assert report["ka"].rejects.total() == 2, "of the same source, what is left out is replaced as well"
    assert report["ka"].sources == {"anna": 7, "ben": len(more)}
    shown = json.loads((tmp_path / "out/report.json").read_text())["ka"]
    assert (shown["sources"], sum(shown["rejects"].values())) == ({"anna": 7, "ben": len(more)}, 2)


def test_a_recording_of_several_texts_is_left_out(recordings: Path, tmp_path: Path) -> None:
    """Utterances of one long recording, say, of which a table has begin and end."""
    rows = listed(recordings)
    rows += [{**rows[0], "text": sentence(20)}, {**rows[0], "text": sentence(21)}]
    table = written(recordings / "list.csv", rows)
    _, rejects = import_table(table, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    told = [(int(where.rpartition(":")[2]), reason) for where, reason in rejects]
    assert sorted(told) == [(line, "one sound, several texts") for line in (2, len(rows), len(rows) + 1)]


def test_a_folder_tells_of_recordings_without_a_text(recordings: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(recordings.iterdir())):
        if number:
            path.with_suffix(".TXT" if number == 1 else ".txt").write_text(sentence(number))
    (recordings / "notes.md").write_text("no recording")
    (recordings / "gone.txt").write_text(sentence(20))
    _, rejects = import_table(recordings, tmp_path / "out", "ka", licence="CC0-1.0", workers=1)
    assert sorted(reason for _, reason in rejects) == ["missing audio", "no transcript"]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "no column with the file"),
        (b"path,words\na.wav,x\n", "no column with the transcript: one of text, sentence"),
        (b"path,text,split\na.wav,x,some\n", "list.csv:2: split is one of"),
        (b"path,text\n,x\n", "list.csv:2: no file is named"),
        (b"path,text\na.wav,x, y\n", "list.csv:2: more cells than the head has columns"),
        (b'path,"te"xt\na.wav,x\n', "list.csv:1: not the head of a table"),
        ("path,text\na.wav,ä\n".encode("latin-1"), "save it as CSV in UTF-8"),
        (b"path,text\na.wav,x\n", "none of 1 recordings can be used: missing audio .*list.csv:2: missing audio"),
        (b"path,text\n", "none of 0 recordings can be used: it is empty"),
        (b'path,text\na.wav,x\nb.wav,"x"y\n', "list.csv:3: not a line of a table"),
        (b"path,text\n\n\na.wav,x,y\n", "list.csv:4: more cells than the head has columns"),
        (
            b'path,text\na.wav,x\nb.wav,"x\nc.wav,x\nd.wav,x\n',
            "list.csv:5: not a line of a table: unexpected end of data, in a row that begins after line 2",
        ),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, wrong: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=wrong):
        import_table(tmp_path / "list.csv", tmp_path / "out", "ka", licence="CC0-1.0", workers=1)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("გამარჯობა, მსოფლიო!", "გამარჯობა მსოფლიო"),
        ("Ngā  mihi — NUI", "ngā mihi nui"),
        ("Nga\u0304 mihi", "ngā mihi"),
        ("नमस्ते। दुनिया", "नमस्ते दुनिया"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("o’zbek tili", "o'zbek tili"),
        ("'quoted'", "quoted"),
        ("a\u200bb", "ab"),
        ("Łaʼ tłʼóoʼdi, ʼa ʼ", "ła' tł'óo'di 'a"),
        ("ʻOkina Hawaiʻi", "ʻokina hawaiʻi"),
        ("jmɨɨ˥˩ ma˥ma˧.", "jmɨɨ˥˩ ma˥ma˧"),
        ("ga\ua789a", "ga\ua789a"),
        ("ג׳ירפה צה״ל סנדוויץ׳.", "ג׳ירפה צה״ל סנדוויץ׳"),
        ("ג'ירפה צה\"ל", "ג׳ירפה צה״ל"),
        ('״שלום״, "שלום"', "שלום שלום"),
        ("二〇二四年，〇", "二〇二四年 〇"),
        ("Ի՞նչ է։", "ինչ է"),
        ("ἀλλ᾽ ἐγώ", "ἀλλ ἐγώ"),
    ],
)
def test_texts_of_any_language(text: str, normalised: str) -> None:
    assert normalise_any(text, "xx") == normalised


@pytest.mark.parametrize(
    ("language", "normalised"), [("tr", "ırmak izmir"), ("az", "ırmak izmir"), ("sw", "irmak izmir")]
)
def test_a_dot_is_kept_where_it_makes_another_letter(language: str, normalised: str) -> None:
    assert normalise_any("Irmak İzmir", language) == normalised


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sura 12", "digits"),
        ("१२", "digits"),
        ("50 €", "digits"),
        ("a & b", "spoken symbols"),
        ("a\u00a8b", "spoken symbols"),
        ("˥", "empty text"),
        ("Ⅳ", "digits"),
        ("[laughs] a", "stage direction"),
        ("a\ufffdb", "lost letters"),
        ("...", "empty text"),
    ],
)
def test_texts_that_do_not_say_what_is_said(text: str, reason: str) -> None:
    with pytest.raises(UnusableText) as caught:
        normalise_any(text, "xx")
    assert caught.value.reason == reason
