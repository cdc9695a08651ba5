"""A checkpoint like MMS's, made by transformers: a pre-norm backbone, and a few languages of different vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from tests.builders import reference

LANGUAGES = {
    "deu": ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyzäöüß'-"],
    "fra": ["<s>", "|", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyzàâçéèêîôû'"],
    "uig-script_arabic": ["|", *"ئابپتجچخدرزژسشغفقكگڭلمنھوۇۆۈۋېىي", "<unk>", "<s>", "</s>", "<pad>"],
    "uig-script_cyrillic": ["<pad>", "|", "<unk>", *"абвгдежзийклмнопрстуфхчшыюяғқңөүһҗә"],
}
WIDTH = 16


def make_mms(folder: Path, languages: dict[str, list[str]] = LANGUAGES) -> Any:
    """Write the checkpoint, and return transformers' model of it. Everything stands well away from zero, and heads are
    scaled until noise makes them talk."""
    model = reference("wav2vec2-pre-norm-layer", adapter_attn_dim=WIDTH)
    model.save_pretrained(folder)
    vocab = {code: {token: number for number, token in enumerate(tokens)} for code, tokens in languages.items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    for seed, (code, tokens) in enumerate(languages.items()):
        torch.manual_seed(100 + seed)
        tensors = {}
        for name, tensor in model._get_adapters().items():
            shape = (len(tokens), *tensor.shape[1:]) if name.startswith("lm_head") else tensor.shape
            tensors[name] = torch.randn(shape) * (1.5 if name == "lm_head.weight" else 0.3)
            if name.endswith("norm.weight"):
                tensors[name] += 1
        save_file(tensors, folder / f"adapter.{code}.safetensors", {"format": "pt"})
    return model


def tuned_mms(folder: Path, code: str = "tur") -> Wav2Vec2CTCTokenizer:
    """Add an adapter to the checkpoint by Hugging Face's recipe ("Fine-tuning MMS Adapter Models"), and return its
    tokenizer, which transformers saved there: the head has a row for each of its tokens."""
    spoken = json.loads((folder / "vocab.json").read_text())
    spoken[code] = {token: number for number, token in enumerate(["a", "b", "c", "|", "[UNK]", "[PAD]"])}
    (folder / "vocab.json").write_text(json.dumps(spoken))
    tokenizer: Wav2Vec2CTCTokenizer = Wav2Vec2CTCTokenizer.from_pretrained(
        str(folder), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|", target_lang=code
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(9)
    model = reference("wav2vec2-pre-norm-layer", adapter_attn_dim=WIDTH, vocab_size=len(tokenizer))
    tensors = {name: torch.randn(tensor.shape) * 0.3 for name, tensor in model._get_adapters().items()}
    save_file(tensors, folder / f"adapter.{code}.safetensors", {"format": "pt"})
    return tokenizer


def processor(folder: Path, code: str) -> Wav2Vec2Processor:
    """transformers' own, speaking one language of the checkpoint."""
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), target_lang=code)
    return Wav2Vec2Processor(Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True), tokenizer)
