import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.record import AdapterRecord, StoredFile, check_name

RECORD = AdapterRecord(
    name="de-kunde.7",
    language="de",
    config=AdapterConfig("bottleneck", 64, (4, 5, 6, 7), "adapted", 32, {"activation": "relu"}),
    weights=StoredFile.of("weights", "safetensors", b"weights"),
    vocab=StoredFile.of("vocab", "json", b"vocab"),
    dtype="float16",
    default=True,
    fingerprint="ab" * 32,
    metrics={"test": {"wer": 0.31, "cer": 0.08}},
    training={"data": ["a", "b"], "steps": 2000},
    licence="CC-BY-SA-3.0",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def changed(**fields):
    return json.dumps({**json.loads(RECORD.to_json()), **fields})


def test_round_trip():
    again = AdapterRecord.from_json(RECORD.name, RECORD.to_json())
    assert again == RECORD
    assert again.version == RECORD.version
    assert again.verified


def test_what_may_be_left_out():
    data = json.loads(RECORD.to_json())
    for key in ("default", "fingerprint", "metrics", "training", "licence", "synthetic"):
        del data[key]
    record = AdapterRecord.from_json(RECORD.name, json.dumps(data))
    assert not record.verified
    assert not record.default
    assert (record.metrics, record.training, record.licence) == ({}, {}, None)


def test_every_change_is_another_version():
    versions = {
        RECORD.version,
        replace(RECORD, default=False).version,
        replace(RECORD, licence="GPL-2.0").version,
        replace(RECORD, weights=StoredFile.of("weights", "safetensors", b"others")).version,
    }
    assert len(versions) == 4
    assert all(len(version) == 12 for version in versions)


def test_language_becomes_a_tag():
    assert AdapterRecord.from_json(RECORD.name, changed(language="por_BR")).language == "pt-BR"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"format": 2}, "format 2, not 1"),
        ({"format": True}, "not of type int"),
        ({"name": "en"}, "for 'en'"),
        ({"language": "xx"}, "not the tag of a language"),
        ({"language": None}, "not of type str"),
        ({"dtype": "int8"}, "dtype"),
        ({"dtype": "object"}, "dtype"),
        ({"default": 1}, "'default'"),
        ({"metrics": {"test": {"wer": -1}}}, "metrics of 'test'"),
        ({"metrics": {"test": 0.3}}, "metrics of 'test'"),
        ({"config": {}}, "config lacks"),
        ({"config": {**RECORD.config.to_dict(), "layers": [3, 2]}}, "ascend"),
        ({"config": {**RECORD.config.to_dict(), "layers": [-1]}}, "ascend"),
        ({"config": {**RECORD.config.to_dict(), "layers": [True]}}, "whole numbers"),
        ({"config": {**RECORD.config.to_dict(), "size": "64"}}, "'size'"),
        ({"config": {**RECORD.config.to_dict(), "norms": "some"}}, "norms"),
        ({"config": {**RECORD.config.to_dict(), "width": 3}}, "unknown field 'width'"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"weights": "weights.safetensors"}, "'weights'"),
    ],
)
def test_refused_with_the_reason(fields, reason):
    with pytest.raises(AdapterFormatError, match=reason) as caught:
        AdapterRecord.from_json(RECORD.name, changed(**fields))
    assert caught.value.name == RECORD.name


@pytest.mark.parametrize(
    "file",
    ["weights.pt", "weights.bin", "../en/weights-0123456789abcdef.safetensors", "/etc/passwd", "adapter.json",
     f"weights-{'0' * 16}.safetensors", RECORD.vocab.name, RECORD.weights.name + "/../x", ""],
)  # fmt: skip
def test_files_are_named_for_their_hash_and_nothing_else(file):
    stored = {"file": file, "sha256": RECORD.weights.sha256, "bytes": 7}
    with pytest.raises(AdapterFormatError, match="lie in weights-"):
        AdapterRecord.from_json(RECORD.name, changed(weights=stored))


@pytest.mark.parametrize(("digest", "size"), [("xyz", 1), ("A" * 64, 1), ("../" * 22, 1), (RECORD.weights.sha256, -1)])
def test_hashes_are_hashes(digest, size):
    stored = {"file": f"weights-{digest[:16]}.safetensors", "sha256": digest, "bytes": size}
    with pytest.raises(AdapterFormatError, match="64 hex digits"):
        AdapterRecord.from_json(RECORD.name, changed(weights=stored))


@pytest.mark.parametrize(
    "data",
    ["", "null", "[]", "[" * 200_000, '{"format": 1', '{"format": NaN}', b"\x80\x04\x95\x00", b"\xff\xfe", b"\0" * 10,
     changed(training={"x": float("nan")}), changed(training=json.loads('{"a":' * 40 + "1" + "}" * 40)),
     changed(language_model={"file": "words.arpa.gz", "sha256": "0" * 64, "bytes": 1, "alpha": 10**400, "beta": 1}),
     changed(licence="\ud800"), '{"format": ' + "9" * 5000 + "}"],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_not_a_record(data):
    with pytest.raises(AdapterFormatError):
        AdapterRecord.from_json(RECORD.name, data)


@given(st.sampled_from(sorted(json.loads(RECORD.to_json()))), JSON)
def test_any_json_in_any_field_is_read_or_refused(key, value):
    try:
        record = AdapterRecord.from_json(RECORD.name, changed(**{key: value}))
    except AdapterFormatError:
        return
    assert AdapterRecord.from_json(RECORD.name, record.to_json()) == record


@given(st.binary() | st.text())
def test_any_content_is_refused(data):
    with pytest.raises(AdapterFormatError):
        AdapterRecord.from_json(RECORD.name, data)


@pytest.mark.parametrize("name", ["de", "de-AT", "7", "a.b_c-d", "x" * 64, "de..at", "DE"])
def test_names(name):
    check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".de", "-de", "de.", "de/at", "../de", "/de", "de\\at", "de\n", "de\0", "de at", "dé", "x" * 65,
     "auto", "AUTO", "x" * 10**6, "‮de", "%2e%2e", "~root", "C:"],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_no_names(name):
    with pytest.raises(AdapterFormatError, match="a name is"):
        check_name(name)


def test_another_backbone():
    RECORD.check_fits("ab" * 32, BackboneSize(16, 8, 32))
    replace(RECORD, fingerprint=None).check_fits("cd" * 32, BackboneSize(16, 8, 32))
    with pytest.raises(AdapterMismatch, match=r"made for the backbone abab.*, and this is cdcd"):
        RECORD.check_fits("cd" * 32, BackboneSize(16, 8, 32))
    with pytest.raises(AdapterMismatch, match="adapts layer 7 of 7"):
        RECORD.check_fits("ab" * 32, BackboneSize(16, 7, 32))
