"""Adapters of three projects in one padded batch: every row says what its own library says of the clip alone."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from adapters.config import AdapterConfig, top_layers
from adapters.formats.mms import read_mms
from adapters.formats.peft import read_peft
from adapters.frontend import pad
from adapters.methods.lora import TARGETS
from tests.adapters.formats.theirs import CLOSE, logits, mms_model, ours, peft_model
from tests.builders import clip, perturbed_adapter, reference, served

pytest.importorskip("peft", reason="the dev extra is not installed")

CLIPS = [clip(seconds, seed=60 + i, loudness=0.8 if i == 2 else 0.1) for i, seconds in enumerate((0.4, 1.7, 0.9, 2.2))]
ORDERS = {"in turn": [0, 1, 2, 3], "another way about": [3, 2, 1, 0], "one twice": [1, 2, 1, 4], "PEFT's": [0, 4, 0, 4]}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("order", ORDERS)
def test_every_row_equals_its_own_library(order, tmp_path):
    kind = "wav2vec2-pre-norm-layer"
    encoder = served(reference(kind))
    mms = mms_model(tmp_path / "mms", {"deu": 31, "fra": 20})
    plain = peft_model(kind, tmp_path / "plain", seed=1)
    stabilised = peft_model(
        kind, tmp_path / "rs", 2, 40, target_modules=list(TARGETS), use_rslora=True, rank_pattern={"k_proj": 2}
    )
    bottleneck = perturbed_adapter(AdapterConfig("bottleneck", 8, top_layers(4, 2), "adapted", 17), encoder, 3)
    spoken = json.loads((tmp_path / "mms" / "vocab.json").read_text())
    fra = read_mms("fra", load_file(tmp_path / "mms" / "adapter.fra.safetensors"), spoken["fra"], encoder.size)
    found = [
        read_peft("plain", tmp_path / "plain", encoder.size),
        read_mms("deu", load_file(tmp_path / "mms" / "adapter.deu.safetensors"), spoken["deu"], encoder.size),
        fra,
        None,
        read_peft("rs", tmp_path / "rs", encoder.size),
    ]
    worn = [(one.config, one.tensors) if one else (bottleneck.config, bottleneck.tensors()) for one in found]
    rows = ours(encoder, [worn[i] for i in ORDERS[order]], CLIPS)
    for samples, row, which in zip(CLIPS, rows, ORDERS[order], strict=True):
        if which == 3:
            with torch.inference_mode():
                theirs = encoder(pad([samples]), bottleneck)[0]
        elif which in (1, 2):
            mms.load_adapter({1: "deu", 2: "fra"}[which])
            theirs = logits(mms, samples)
        else:
            theirs = logits(stabilised if which else plain, samples)
        torch.testing.assert_close(row, theirs, **CLOSE)
