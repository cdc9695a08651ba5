"""Whole checkpoints with their processors, as transformers saves them: the logits are its own, and the texts are those
of its processor. Solo, and both rows of a padded batch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from adapters.backbone import load_backbone
from adapters.bank import Bank
from adapters.config import AdapterConfig
from adapters.ctc import BestPath, best_tokens, transcript
from adapters.formats.checkpoint import read_checkpoint
from adapters.frontend import pad
from adapters.vocab import is_special
from tests.builders import clip, reference

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
CLIPS = [clip(2.6, seed=91), clip(1.2, seed=92, loudness=0.7)]
UPPER = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
LOWER = ["|", *"abcdefghijklmnopqrstuvwxyzäöüß", "[UNK]", "[PAD]"]
SPACED = [*"abcdefghijklm", "<pad>", "<space>", *"nopqrstuvwxyz", "<unk>"]


@dataclass(frozen=True)
class Case:
    kind: str
    tokens: list[str]
    tokenizer: dict[str, Any] = field(default_factory=dict)
    normalised: bool = True


CASES = {
    "wav2vec2-base-960h": Case("wav2vec2-post-norm-group", UPPER),
    "in small letters": Case("wav2vec2-post-norm-group", UPPER, {"do_lower_case": True}),
    "XLS-R": Case("wav2vec2-pre-norm-layer", LOWER, {"pad_token": "[PAD]", "unk_token": "[UNK]"}),
    "HuBERT": Case("hubert-pre-norm-layer", SPACED, {"word_delimiter_token": "<space>"}, normalised=False),
}


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory) -> tuple[Any, Any, Path]:
    """The model, its processor, and the folder in which both were saved."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp("checkpoint")
    vocab = folder / "vocab.json"
    vocab.write_text(json.dumps({token: i for i, token in enumerate(case.tokens)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(vocab), **case.tokenizer)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=case.normalised, return_attention_mask=False)
    processor = Wav2Vec2Processor(extractor, tokenizer)
    model = reference(case.kind, vocab_size=len(case.tokens), pad_token_id=tokenizer.pad_token_id)
    with torch.no_grad():
        model.lm_head.weight.mul_(20.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, folder


@pytest.fixture(scope="module")
def wanted(saved) -> list[Tensor]:
    model, processor, _ = saved
    with torch.inference_mode():
        return [
            model(processor(samples, sampling_rate=16_000, return_tensors="pt").input_values).logits[0]
            for samples in CLIPS
        ]


@pytest.mark.parametrize("rows", [[0], [1], [0, 1]], ids=["solo", "the other", "padded"])
@torch.inference_mode()
def test_logits_and_texts_are_those_of_transformers(saved, wanted, rows):
    _, processor, folder = saved
    read, encoder = read_checkpoint("de", folder), load_backbone(folder)
    bank = Bank(encoder.size, limit=1)
    config = AdapterConfig("head", 0, (), "none", read.vocab.size)
    seat = bank.seat(config, {"head.weight": read.weight, "head.bias": read.bias})
    logits = encoder(pad([CLIPS[i] for i in rows], normalised=read.normalised), bank.dress([seat] * len(rows)))
    ids, probabilities = best_tokens(logits)
    for row, number in enumerate(rows):
        frames, size = wanted[number].shape
        torch.testing.assert_close(logits[row, :frames, :size], wanted[number], **CLOSE)
        path = BestPath(ids[row, :frames].numpy(), probabilities[row, :frames].numpy())
        found = transcript(path, read.vocab, frame_s=0.02, duration_s=frames * 0.02).text
        assert len(found) > 10
        assert found == _text(processor, wanted[number])


def _text(processor: Any, logits: Tensor) -> str:
    """Without special tokens, which it skips only together with blanks, and then letters merge."""
    tokenizer = processor.tokenizer
    said: str = processor.decode(logits.argmax(-1))
    for token in filter(is_special, tokenizer.get_vocab()):
        if token != tokenizer.word_delimiter_token:
            said = said.replace(token.lower() if tokenizer.do_lower_case else token, "")
    return " ".join(said.split())
