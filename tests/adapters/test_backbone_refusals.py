"""Checkpoints that load and would be heard wrongly: quantised ones, and those for audio at another rate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from adapters.backbone import fingerprint, load_backbone, load_model, read_config, read_normalised
from adapters.errors import BackboneError
from adapters.formats.checkpoint import read_checkpoint
from adapters.formats.pickled import convert
from adapters.repository import Folder
from tests.builders import reference

KIND = "wav2vec2-pre-norm-layer"
Quantised = Callable[[str, Tensor], dict[str, Tensor]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint that a test may change."""
    model = reference(KIND)
    model.save_pretrained(tmp_path / "checkpoint")
    tokens = ["<pad>", "|", *(chr(ord("a") + i) for i in range(model.config.vocab_size - 2))]
    (tmp_path / "checkpoint/vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    return tmp_path / "checkpoint"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def eight_bits(name: str, weight: Tensor) -> dict[str, Tensor]:
    """As bitsandbytes lays them down."""
    scale = weight.abs().amax(dim=1)
    rounded = (weight / scale[:, None] * 127).round().to(torch.int8)
    return {name: rounded, name.replace(".weight", ".SCB"): scale}


def small_floats(name: str, weight: Tensor) -> dict[str, Tensor]:
    scale = weight.abs().max() / 448
    return {name: (weight / scale).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale[None, None]}


def quantise(folder: Path, how: Quantised, *, below: str = ".encoder.layers.") -> None:
    path = folder / "model.safetensors"
    found: dict[str, Tensor] = {}
    for name, tensor in safetensors.torch.load_file(path).items():
        found |= how(name, tensor) if below in name and tensor.ndim == 2 else {name: tensor}
    safetensors.torch.save_file(found, path, {"format": "pt"})


def loaded_in_any_way(folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: load_backbone(folder),
        lambda: load_model(folder),
        lambda: fingerprint(folder),
        lambda: read_checkpoint("de", folder),
    ]


@pytest.mark.parametrize(("how", "kind"), [(eight_bits, "I8"), (small_floats, "F8_E4M3")])
def test_integers_are_not_taken_for_the_weights(folder, how, kind):
    quantise(folder, how)
    for load in loaded_in_any_way(folder):
        with pytest.raises(
            BackboneError,
            match=rf"encoder\.layers\.\d\.\S+ is of the type {kind}: weights are F16, BF16, F32 or F64; take the check",
        ):
            load()


def test_nor_those_of_a_head(folder):
    quantise(folder, eight_bits, below="lm_head")
    with pytest.raises(BackboneError, match=r"lm_head\.weight is of the type I8"):
        read_checkpoint("de", folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_any_type_of_numbers_is(folder, dtype):
    path = folder / "model.safetensors"
    changed = {name: tensor.to(dtype) for name, tensor in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file({**changed, "steps": torch.tensor(7)}, path, {"format": "pt"})
    for load in loaded_in_any_way(folder):
        load()


@pytest.mark.parametrize("told", [{"quant_method": "bitsandbytes", "load_in_8bit": True}, {}, "gptq"])
def test_what_says_that_it_is_quantised_is_refused(folder, told):
    change_config(folder, quantization_config=told)
    for load in [*loaded_in_any_way(folder), lambda: read_config(folder)]:
        with pytest.raises(BackboneError, match=r"config\.json: quantization_config is set .*before it was quantised"):
            load()
    change_config(folder, quantization_config=None)
    load_backbone(folder)


def extracts(rate: Any) -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(sampling_rate=rate)


def preprocessor(folder: Path, rate: Any) -> None:
    extracts(rate).save_pretrained(folder)


def processor(folder: Path, rate: Any) -> None:
    Wav2Vec2Processor(extracts(rate), Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))).save_pretrained(folder)
    extracts(16_000).save_pretrained(folder)  # which does not count beside it


@pytest.mark.parametrize("save", [preprocessor, processor])
@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_audio_at_another_rate_is_not_for_it(folder, save, rate):
    save(folder, rate)
    for load in [*loaded_in_any_way(folder), lambda: read_normalised(folder), lambda: read_config(folder)]:
        with pytest.raises(
            BackboneError, match=rf"{save.__name__}_config\.json: sampling_rate is {rate}; audio is at 16000 Hz here"
        ):
            load()


@pytest.mark.parametrize("save", [preprocessor, processor])
@pytest.mark.parametrize("rate", [16_000, 16_000.0, None])
def test_at_16_khz_it_is(folder, save, rate):
    save(folder, rate)
    assert read_normalised(folder)
    load_backbone(folder)


@pytest.mark.parametrize("broken", ["rate", "config", "weights"])
def test_none_of_them_is_made_safetensors(folder, tmp_path, broken):
    if broken == "rate":
        preprocessor(folder, 8_000)
    elif broken == "config":
        change_config(folder, quantization_config={"quant_method": "gptq"})
    else:
        quantise(folder, eight_bits)
    weights = folder / "model.safetensors"
    torch.save(safetensors.torch.load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(BackboneError, match=r"sampling_rate|quantised"):
        convert(Folder(folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_transformers_cannot_import_is_refused_as_a_backbone(folder, monkeypatch):
    def lacking(*_: Any) -> None:
        raise ImportError("some library is not installed")

    monkeypatch.setattr(transformers, "Wav2Vec2Model", lacking)
    with pytest.raises(BackboneError, match="no wav2vec2 is of this configuration: some library is not installed"):
        load_backbone(folder)
