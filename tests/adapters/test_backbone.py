"""Backbones on disk: loaded as transformers would, known again however they were saved, refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from adapters.backbone import fingerprint, load_backbone, load_model, read_config, read_normalised
from adapters.errors import BackboneError
from adapters.frontend import pad
from tests.builders import KINDS, clip, encoder_of, reference

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
KIND = "wav2vec2-pre-norm-layer"
SHIPPED = Path(__file__).parents[2] / "models/small"


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory) -> tuple[Any, Path]:
    """A model of each kind, saved alone (``base``) and with its head and prefix (``ctc``)."""
    model, folder = reference(request.param), tmp_path_factory.mktemp("saved")
    getattr(model, model.base_model_prefix).save_pretrained(folder / "base")
    model.save_pretrained(folder / "ctc")
    return model, folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backbone that a test may change."""
    reference(KIND).wav2vec2.save_pretrained(tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("form", ["base", "ctc"])
@torch.inference_mode()
def test_loads_every_kind_frozen_and_folded(saved, form):
    model, folder = saved
    encoder = load_backbone(folder / form)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not hasattr(encoder.model.encoder.pos_conv_embed.conv, "parametrizations")
    audio = pad([clip(1.0), clip(0.4, seed=1)])
    ours = encoder.hidden(encoder.trunk(audio, 0), encoder.bare)
    wanted = encoder_of(model)
    torch.testing.assert_close(ours[0], wanted.hidden(wanted.trunk(audio, 0), wanted.bare)[0], **CLOSE)


def test_the_same_weights_have_one_fingerprint_however_saved(saved, tmp_path):
    _, folder = saved
    found = fingerprint(folder / "base")
    assert len(found) == 16
    assert fingerprint(folder / "ctc") == found
    shutil.copytree(folder / "base", tmp_path / "renamed")

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        """As torch before 2.0 called the weight norm of the positional convolution."""
        for old, new in (("original0", "g"), ("original1", "v")):
            name = f"encoder.pos_conv_embed.conv.parametrizations.weight.{old}"
            tensors[f"encoder.pos_conv_embed.conv.weight_{new}"] = tensors.pop(name)

    change_weights(tmp_path / "renamed", rename)
    assert fingerprint(tmp_path / "renamed") == found


def test_no_two_kinds_share_a_fingerprint(tmp_path):
    found = set()
    for kind in KINDS:
        model = reference(kind)
        getattr(model, model.base_model_prefix).save_pretrained(tmp_path / kind)
        found.add(fingerprint(tmp_path / kind))
    assert len(found) == len(KINDS)


def test_whoever_loads_one_computes_float32_in_float32(folder, monkeypatch):
    """Not only who serves: what is evaluated on a GPU is what a GPU serves."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load_backbone(folder)
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_serving_in_any_dtype_leaves_the_fingerprint(folder, dtype):
    before = fingerprint(folder)
    encoder = load_backbone(folder, dtype=dtype)
    assert {parameter.dtype for parameter in encoder.parameters()} == {dtype}
    assert fingerprint(folder) == before


def test_what_float16_can_say_has_one_fingerprint_in_float16_and_float32(folder):
    change_weights(folder, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    before = fingerprint(folder)
    change_weights(folder, lambda tensors: tensors.update({name: t.float() for name, t in tensors.items()}))
    assert fingerprint(folder) == before


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.3.attention.k_proj.bias",
        "feature_extractor.conv_layers.0.conv.weight",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        "feature_projection.layer_norm.bias",
    ],
)
def test_one_changed_weight_is_another_backbone(folder, name):
    before = fingerprint(folder)
    change_weights(folder, lambda tensors: tensors[name].view(-1)[0].add_(1e-3))
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    "change",
    [{"do_stable_layer_norm": False}, {"layer_norm_eps": 1e-6}, {"hidden_act": "relu"}, {"num_attention_heads": 2}],
    ids=lambda change: next(iter(change)),
)
def test_one_changed_structure_is_another_backbone(folder, change):
    before = fingerprint(folder)
    change_config(folder, **change)
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    "change",
    [{"vocab_size": 99}, {"mask_time_prob": 0.3}, {"hidden_dropout": 0.3}, {"pad_token_id": 3}],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_no_output_changes_no_fingerprint(folder, change):
    before = fingerprint(folder)
    change_config(folder, **change)
    assert fingerprint(folder) == before


def test_features_without_their_norm_are_another_backbone(tmp_path):
    """Of HuBERT, where the weights can be the very same; a backbone that has it is known as it was before that counted,
    and of wav2vec 2.0 all have it."""
    reference("hubert-pre-norm-layer").hubert.save_pretrained(tmp_path / "hubert")
    reference(KIND).wav2vec2.save_pretrained(tmp_path / "wav2vec2")
    for kind in ("hubert", "wav2vec2"):
        folder = tmp_path / kind
        before = fingerprint(folder)
        change_config(folder, feat_proj_layer_norm=False)
        assert (fingerprint(folder) == before) == (kind == "wav2vec2")
        config = json.loads((folder / "config.json").read_text())
        del config["feat_proj_layer_norm"]
        (folder / "config.json").write_text(json.dumps(config))
        assert fingerprint(folder) == before


def test_the_adapters_that_ship_are_of_the_backbone_that_ships():
    known_by = fingerprint(SHIPPED / "backbone")
    records = sorted(SHIPPED.glob("adapters/*/adapter.json"))
    assert len(records) > 10
    assert {json.loads(path.read_text())["fingerprint"] for path in records} == {known_by}


def test_heads_and_adapters_in_the_file_do_not_count(folder):
    before = fingerprint(folder)
    extra = ("lm_head.weight", "quantizer.codevectors", "masked_spec_embed", "adapter.layers.0.conv.bias")
    inside = "encoder.layers.1.adapter_layer.linear_1.weight"
    change_weights(folder, lambda tensors: tensors.update({name: torch.ones(48) for name in (*extra, inside)}))
    assert fingerprint(folder) == before
    load_backbone(folder)


def test_pickles_are_never_loaded(folder):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for call in (load_backbone, fingerprint):
        with pytest.raises(
            BackboneError,
            match=r"a pickle, which can run code and is never loaded: `tongues backbone convert .* --out FOLDER`",
        ):
            call(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BackboneError, match=r"no config\.json; a backbone is a folder in Hugging Face layout"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_a_broken_configuration_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(BackboneError, match=r"config.json: not readable as JSON"):
        load_backbone(folder)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '"wav2vec2"', '{"model_type": "whisper"}', '{"model_type": ["hubert"]}']
)
def test_other_models_are_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(BackboneError, match="the encoder drives wav2vec2 and hubert"):
        load_backbone(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "wide"},
        {"conv_dim": [32, 32]},
        {"hidden_act": "nope"},
        {"num_attention_heads": 5},
        {"hidden_size": 64},
    ],
    ids=str,
)
def test_configurations_that_do_not_fit_are_refused(folder, change):
    change_config(folder, **change)
    with pytest.raises(BackboneError):
        load_backbone(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_the_attention_of_transformers_is_of_no_account(folder, key):
    """It never runs here: what a checkpoint was trained with need not be installed."""
    change_config(folder, **{key: "flash_attention_2", "output_attentions": True})
    for call in (load_backbone, load_model, fingerprint):
        call(folder)


def test_batch_norm_in_the_positions_is_refused(tmp_path):
    reference("hubert-post-norm-group", conv_pos_batch_norm=True).hubert.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="batch norm in the positional convolution is not supported"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_broken_weights_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    for call in (load_backbone, fingerprint):
        with pytest.raises(BackboneError, match=r"safetensors|do not load"):
            call(folder)


def test_weights_that_are_not_all_there_are_refused_and_never_made_up(folder):
    change_weights(folder, lambda tensors: tensors.pop("encoder.layers.2.attention.q_proj.weight"))
    with pytest.raises(BackboneError, match=r"lacks encoder.layers.2.attention.q_proj.weight"):
        load_backbone(folder)


def test_more_layers_than_weights_are_refused(folder):
    change_config(folder, num_hidden_layers=5)
    with pytest.raises(BackboneError, match=r"lacks encoder.layers.4\..* and 13 more"):
        load_backbone(folder)


def test_normalisation_is_what_the_checkpoint_says_and_on_by_default(folder):
    assert read_normalised(folder) is True
    path = folder / "preprocessor_config.json"
    for content, wanted in (("{}", True), ('{"do_normalize": false}', False), ('{"do_normalize": true}', True)):
        path.write_text(content)
        assert read_normalised(folder) is wanted
    for content in ("[]", "{"):
        path.write_text(content)
        with pytest.raises(BackboneError, match="not a preprocessor configuration"):
            read_normalised(folder)


@pytest.mark.parametrize("wanted", [True, False])
def test_normalisation_as_a_processor_of_transformers_saves_it(folder, wanted):
    (folder / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2}')
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(do_normalize=wanted), tokenizer).save_pretrained(folder)
    assert (folder / "processor_config.json").exists()
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": not wanted}))
    assert read_normalised(folder) is wanted
    (folder / "processor_config.json").write_text("{}")
    assert read_normalised(folder) is not wanted
    for content in ("1", '{"feature_extractor": 1}'):
        (folder / "processor_config.json").write_text(content)
        with pytest.raises(BackboneError, match=r"processor_config.json: not a preprocessor configuration"):
            read_normalised(folder)


def test_convolutions_above_the_layers_are_refused(tmp_path):
    reference(KIND, add_adapter=True, output_hidden_size=48).wav2vec2.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="add_adapter is set: convolutions above the layers"):
        read_config(tmp_path)
