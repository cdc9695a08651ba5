"""Whole checkpoints in both layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from adapters.backbone import fingerprint
from adapters.config import AdapterConfig
from adapters.errors import AdapterFormatError, BackboneError
from adapters.formats import Imported
from adapters.formats.checkpoint import read_checkpoint, rounding
from adapters.frontend import pad
from tests.adapters.formats.theirs import CLIPS, CLOSE, letters, logits, made, published
from tests.builders import KINDS, encoder_of, reference


def saved(folder: Path, kind: str = "wav2vec2-pre-norm-layer", **changes: Any) -> Any:
    model = reference(kind, **changes)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(letters(24).to_json())
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_transformers_says(kind, tmp_path):
    model = saved(tmp_path, kind)
    found = read_checkpoint("de", tmp_path)
    audio = pad(CLIPS[:1])
    hidden = found.encoder.hidden(found.encoder.trunk(audio, 4), found.encoder.bare)
    torch.testing.assert_close(F.linear(hidden, found.weight, found.bias)[0], logits(model, CLIPS[0]), **CLOSE)
    assert (found.vocab, found.normalised) == (letters(24), True)


def test_our_layout(tmp_path):
    """As full fine-tuning writes it: backbone/, and the head as an adapter."""
    model = reference("wav2vec2-pre-norm-group")
    model.wav2vec2.save_pretrained(tmp_path / "backbone")
    encoder = encoder_of(model)
    head = made(tmp_path / "adapters", encoder, AdapterConfig("head", 0, (), "none", 30))
    found = read_checkpoint("de", tmp_path)
    assert torch.equal(found.weight, head.tensors["head.weight"])
    assert (found.bias.shape, found.vocab) == ((30,), letters(30))
    published(tmp_path / "adapters", "other", encoder, Imported(head.record.config, head.tensors, head.vocab))
    with pytest.raises(AdapterFormatError, match=r"has 2 adapters \(made, other\)"):
        read_checkpoint("de", tmp_path, "de")
    with pytest.raises(AdapterFormatError, match=r"has 0 adapters; a fine-tuned model"):
        read_checkpoint("de", tmp_path, "fr")


def test_an_adapter_of_ours_is_no_head(tmp_path):
    model = reference("wav2vec2-pre-norm-group")
    model.wav2vec2.save_pretrained(tmp_path / "backbone")
    made(tmp_path / "adapters", encoder_of(model), AdapterConfig("lora", 2, (3,), "none", 24))
    with pytest.raises(AdapterFormatError, match=r"made in .* is of the method 'lora'"):
        read_checkpoint("de", tmp_path)


def test_the_rounding_is_that_of_the_coarsest_tensor(tmp_path):
    model = reference("wav2vec2-pre-norm-group")
    for kind, dtype in {"f": torch.float32, "h": torch.float16, "b": torch.bfloat16}.items():
        model.to(dtype).save_pretrained(tmp_path / kind)
        assert rounding(tmp_path / kind) == torch.finfo(dtype).eps


def test_what_is_no_ctc_checkpoint_is_refused(tmp_path):
    saved(tmp_path / "mms", adapter_attn_dim=4)
    with pytest.raises(AdapterFormatError, match=r"of MMS within .*save_file\(model._get_adapters.* adapters import"):
        read_checkpoint("de", tmp_path / "mms")
    folder = tmp_path / "bare"
    saved(folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "lm_head.weight": torch.ones(24, 32)}, weights)
    with pytest.raises(AdapterFormatError, match=r"shapes \(24, 32\) and \(24,\) on a backbone 48 wide"):
        read_checkpoint("de", folder)
    save_file({key: tensor for key, tensor in tensors.items() if key != "lm_head.weight"}, weights)
    with pytest.raises(AdapterFormatError, match=r"no lm_head.weight in .*Wav2Vec2ForCTC, HubertForCTC"):
        read_checkpoint("de", folder)
    save_file(tensors, weights)
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0}))
    with pytest.raises(AdapterFormatError, match="has 1 tokens, the last with the id 0, and the head has 24 rows"):
        read_checkpoint("de", folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="a pickle, which can run code and is never loaded"):
        read_checkpoint("de", folder)
    with pytest.raises(BackboneError, match=r"no config.json"):
        read_checkpoint("de", tmp_path / "none")


def test_a_heads_own_tensors_do_not_count_in_the_fingerprint(tmp_path):
    """What tells that a checkpoint with nothing but a head of its own is on this backbone."""
    model = saved(tmp_path / "whole")
    model.wav2vec2.save_pretrained(tmp_path / "backbone")
    assert fingerprint(tmp_path / "whole") == fingerprint(tmp_path / "backbone")
