"""Things that tests make: backbones of every kind with random weights, adapters far from zero, clips of noise."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import HubertConfig, HubertForCTC, Wav2Vec2Config, Wav2Vec2ForCTC

from adapters.adapter import Adapter
from adapters.backbone import fingerprint, load_backbone
from adapters.config import AdapterConfig, top_layers
from adapters.encoder import Encoder
from adapters.frontend import pad
from adapters.language_head import Calibration, LanguageHead, Letters
from adapters.store import AdapterStore
from adapters.vocab import Vocab

_SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": (32, 32, 32, 32, 32, 32, 32),
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 24,
    "attn_implementation": "eager",
}
_LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

KINDS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "wav2vec2-post-norm-group": (Wav2Vec2Config, Wav2Vec2ForCTC, {}),
    "wav2vec2-pre-norm-layer": (Wav2Vec2Config, Wav2Vec2ForCTC, _LAYER),
    "hubert-post-norm-group": (HubertConfig, HubertForCTC, {}),
    "hubert-pre-norm-layer": (HubertConfig, HubertForCTC, {**_LAYER, "feat_proj_layer_norm": True}),
    "wav2vec2-pre-norm-group": (Wav2Vec2Config, Wav2Vec2ForCTC, {"do_stable_layer_norm": True}),
}


def reference(kind: str, **changes: Any) -> Any:
    """transformers' own model of ``kind`` with random weights, every one of them away from its starting value."""
    config_class, model_class, options = KINDS[kind]
    torch.manual_seed(0)
    model = model_class(config_class(**{**_SMALL, **options, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def encoder_of(model: Any) -> Encoder:
    """Our encoder over the weights of a reference model."""
    return Encoder(getattr(model, model.base_model_prefix)).requires_grad_(False).eval()


def served(model: Any) -> Encoder:
    """Our encoder as it serves the weights of a reference model: saved by transformers, and loaded from there."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_backbone(Path(folder))


def clip(seconds: float, seed: int = 0, loudness: float = 0.1) -> np.ndarray:
    """(N,) float32: noise under a changing envelope with an offset, so that every statistic of it matters."""
    rng = np.random.default_rng(seed)
    count = int(seconds * 16_000)
    envelope = 0.2 + np.abs(np.interp(np.arange(count), np.linspace(0, count, 9), rng.standard_normal(9)))
    return (loudness * (rng.standard_normal(count) * envelope + 0.3)).astype(np.float32)


def perturbed_adapter(config: AdapterConfig, encoder: Encoder, seed: int) -> Adapter:
    """An adapter far from the identity and from every other seed's."""
    torch.manual_seed(seed)
    adapter = Adapter(config, encoder.size)
    adapter.start_from(encoder.model.encoder.layers)
    with torch.no_grad():
        for tensor in adapter.tensors().values():
            tensor.add_(torch.randn_like(tensor) * 0.2)
    return adapter.requires_grad_(False)


LETTERS = {
    "es": "abcdefghijklmnopqrstuvwxyzáéíñóú",
    "fr": "abcdefghijklmnopqrstuvwxyzàâçèéêëîïôùû'",
    "ru": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
}


def make_model(folder: Path, kind: str = "wav2vec2-pre-norm-group") -> Path:
    """A model folder as the service takes it: a random backbone and an adapter for each of es, fr, ru, no two of one
    size, whose heads are scaled until noise makes them talk."""
    model = reference(kind)
    base = getattr(model, model.base_model_prefix)
    base.save_pretrained(folder / "backbone")
    (folder / "backbone" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    encoder = load_backbone(folder / "backbone")
    for seed, (language, letters) in enumerate(LETTERS.items()):
        vocab = Vocab(("<pad>", "|", *letters))
        config = AdapterConfig("bottleneck", 8 * (seed + 1), top_layers(4, 2), "adapted", vocab.size)
        publish_random(folder, language, config, vocab, encoder, seed=seed)
    return folder


def publish_random(
    folder: Path, name: str, config: AdapterConfig, vocab: Vocab, encoder: Encoder, *, seed: int, language: str = ""
) -> None:
    """Publish an adapter far from zero into a model folder."""
    adapter = perturbed_adapter(config, encoder, seed)
    tensors = {key: tensor.detach().clone() for key, tensor in adapter.tensors().items()}
    tensors["head.weight"] *= 8.0
    tensors["head.bias"][vocab.blank] = 0.5
    AdapterStore(folder / "adapters").publish(
        name,
        tensors,
        vocab,
        language=language or name,
        config=config,
        size=encoder.size,
        fingerprint=fingerprint(folder / "backbone"),
        default=True,
        metrics={"test": {"cer": 0.9, "wer": 1.0}},
        licence="CC0-1.0",
    )


def random_letters(hidden_size: int) -> Letters:
    """Seven letters that are all said somewhere."""
    torch.manual_seed(4)
    norm = torch.rand(2, hidden_size)
    return Letters(torch.randn(8, hidden_size), torch.randn(8), norm[0] + 0.5, norm[1])


def add_language_head(folder: Path, waves: Sequence[np.ndarray], layer: int = 2) -> LanguageHead:
    """A random head over es, fr and ru beside the backbone of a model folder, which finds all three among ``waves``."""
    encoder = load_backbone(folder / "backbone")
    letters = random_letters(encoder.hidden_size)
    with torch.inference_mode():
        said = torch.cat([letters.pooled(encoder.trunk(pad([wave]), layer)) for wave in waves])
    torch.manual_seed(3)
    weight = torch.randn(3, said.shape[1])
    weight *= 3.0 / (said @ weight.T).std(dim=0, keepdim=True).T
    bias = -(said @ weight.T).mean(dim=0)
    calibration = Calibration(0.5, 2.0, (0.0, 0.1, -0.1))
    head = LanguageHead(layer, ("es", "fr", "ru"), letters, weight, bias, calibration, fingerprint(folder / "backbone"))
    head.save(folder / "languages")
    return head


def miscounted(arpa: bytes) -> bytes:
    """A language model whose head has a word more than there are, which only KenLM finds out."""
    return re.sub(rb"ngram 1=(\d+)", lambda told: b"ngram 1=%d" % (int(told[1]) + 1), arpa)
