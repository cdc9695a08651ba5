"""Pickles made safetensors: the same backbone comes out, and nothing that a pickle holds besides is run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters.backbone import fingerprint, load_backbone
from adapters.errors import BackboneError
from adapters.formats.pickled import convert
from adapters.repository import open_repository
from tests.builders import reference


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("made")
    reference("wav2vec2-post-norm-group").save_pretrained(folder)
    return folder


@pytest.fixture
def pickled(made: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(made, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_the_same_backbone_comes_out(hub, made, pickled, tmp_path):
    hub.repos["old/checkpoint"] = pickled
    for number, source in enumerate((str(pickled), "old/checkpoint")):
        with pytest.raises(BackboneError, match="tongues backbone convert"):
            load_backbone(pickled)
        out = convert(open_repository(source), tmp_path / f"out{number}")
        assert fingerprint(out) == fingerprint(made)
        assert load_backbone(out).layer_count == 4


def test_in_several_files(made, pickled, tmp_path):
    tensors = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    (pickled / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    index: dict[str, str] = {}
    for number in range(2):
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        torch.save({name: tensors[name] for name in names[number::2]}, pickled / file)
        index |= dict.fromkeys(names[number::2], file)
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    assert fingerprint(convert(open_repository(str(pickled)), tmp_path / "out")) == fingerprint(made)


def test_a_pickle_of_a_torch_of_long_ago(made, pickled, tmp_path):
    """Which is no zip, and cannot be mapped."""
    path = pickled / "pytorch_model.bin"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert fingerprint(convert(open_repository(str(pickled)), tmp_path / "out")) == fingerprint(made)


def test_what_lies_beside_comes_along(pickled, tmp_path):
    beside = ("processor_config.json", "preprocessor_config.json", "added_tokens.json", "vocab.json")
    for name in beside:
        (pickled / name).write_text(json.dumps({name: 1}))
    out = convert(open_repository(str(pickled)), tmp_path / "out")
    assert all((out / name).read_text() == json.dumps({name: 1}) for name in beside)


def test_a_crash_leaves_nothing(pickled, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("adapters.formats.pickled.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        convert(open_repository(str(pickled)), tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_what_a_pickle_would_run_is_not_run(pickled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Evil()}, pickled / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="holds more than tensors"):
        convert(open_repository(str(pickled)), tmp_path / "out")
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_converted_says_why(made, pickled, tmp_path):
    with pytest.raises(BackboneError, match="has safetensors already"):
        convert(open_repository(str(made)), tmp_path / "out")
    torch.save([1, 2], pickled / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="not a mapping of names to tensors"):
        convert(open_repository(str(pickled)), tmp_path / "out")
    (pickled / "pytorch_model.bin").unlink()
    with pytest.raises(BackboneError, match="there are no weights to convert"):
        convert(open_repository(str(pickled)), tmp_path / "out")
    with pytest.raises(BackboneError, match="is not empty"):
        convert(open_repository(str(_pickle(pickled))), made)


def _pickle(folder: Path) -> Path:
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    return folder
