"""Adapters that PEFT and transformers themselves make and save, far from the identity, and what they make of clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from adapters.bank import Bank
from adapters.config import AdapterConfig
from adapters.encoder import Encoder
from adapters.formats import Imported
from adapters.frontend import pad
from adapters.loaded import LoadedAdapter
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from tests.builders import clip, perturbed_adapter, reference

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
CLIPS = [clip(seconds, seed=40 + i) for i, seconds in enumerate((1.3, 0.6, 2.1))]


def letters(count: int) -> Vocab:
    """So many tokens, with the blank where it is not expected."""
    return Vocab(tuple("<pad>" if i == 3 else f"t{i}" for i in range(count)))


def logits(model: Any, samples: np.ndarray) -> Tensor:
    """What a model of theirs makes of one clip alone: (T, V)."""
    with torch.inference_mode():
        found: Tensor = model(torch.from_numpy(pad([samples]).samples.numpy())).logits[0]
    return found


def ours(encoder: Encoder, rows: Sequence[tuple[AdapterConfig, Any]], clips: Sequence[np.ndarray]) -> list[Tensor]:
    """What our bank and encoder make of a padded batch, row i wearing the adapter i: (T, V) each."""
    bank = Bank(encoder.size, limit=8)
    seats = {id(tensors): bank.seat(config, tensors) for config, tensors in rows}
    with torch.inference_mode():
        batch = encoder(pad(clips), bank.dress([seats[id(tensors)] for _, tensors in rows]))
    frames = [encoder.geometry.frames(samples.size) for samples in clips]
    return [batch[i, : frames[i], : config.vocab_size] for i, (config, _) in enumerate(rows)]


def moved(model: Any, seed: int, scale: float = 0.2) -> None:
    """Take what trains in a model well away from where it began."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * scale)


def peft_model(
    kind: str, folder: Path, seed: int = 1, vocab_size: int = 24, base: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """PEFT's own model with a LoRA far from zero, which it saved in ``folder`` with a vocabulary beside it. ``base``:
    what is changed in the configuration of the model below."""
    from peft import LoraConfig, get_peft_model

    given = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"], "r": 4, "lora_alpha": 12}
    below = reference(kind, **(base or {}))
    below.lm_head = torch.nn.Linear(below.config.hidden_size, vocab_size)
    model = get_peft_model(below, LoraConfig(**{**given, **settings})).eval()
    moved(model, seed)
    model.save_pretrained(str(folder))
    (folder / "vocab.json").write_text(letters(vocab_size).to_json())
    return model


def mms_model(folder: Path, languages: dict[str, int], width: int = 8) -> Any:
    """transformers' own model with MMS's adapters, which it saved in ``folder`` with one for each of ``languages``, by
    the sizes of their vocabularies."""
    from transformers.models.wav2vec2.modeling_wav2vec2 import WAV2VEC2_ADAPTER_SAFE_FILE

    model = reference("wav2vec2-pre-norm-layer", adapter_attn_dim=width)
    model.load_state_dict(reference("wav2vec2-pre-norm-layer").state_dict(), strict=False)
    model.save_pretrained(folder)
    for seed, (code, size) in enumerate(languages.items()):
        torch.manual_seed(seed)
        model.lm_head = torch.nn.Linear(model.config.hidden_size, size)
        with torch.no_grad():
            for tensor in model._get_adapters().values():
                tensor.copy_(torch.randn_like(tensor) * 0.3)
        save_file(model._get_adapters(), folder / WAV2VEC2_ADAPTER_SAFE_FILE.format(code))
    spoken = {code: json.loads(letters(size).to_json()) for code, size in languages.items()}
    (folder / "vocab.json").write_text(json.dumps(spoken))
    return type(model).from_pretrained(folder).eval()


def published(folder: Path, name: str, encoder: Encoder, given: Imported) -> LoadedAdapter:
    """``given`` through the store and back."""
    store = AdapterStore(folder)
    record = store.publish(
        name, given.tensors, given.vocab, language="de", config=given.config, size=encoder.size, fingerprint=None
    )
    return store.load(record, size=encoder.size)


def made(
    folder: Path, encoder: Encoder, config: AdapterConfig, seed: int = 5, vocab: Vocab | None = None
) -> LoadedAdapter:
    """An adapter of ours far from zero."""
    tensors = perturbed_adapter(config, encoder, seed).tensors()
    return published(folder, "made", encoder, Imported(config, tensors, vocab or letters(config.vocab_size)))
