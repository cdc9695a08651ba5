"""A model of many adapters in several versions each, and what each version says of real speech, alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from adapters.backbone import load_backbone
from adapters.bank import Bank
from adapters.config import AdapterConfig, top_layers
from adapters.ctc import BestPath, transcript
from adapters.encoder import Encoder
from adapters.frontend import pad
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from adapters.windows import cut
from benchmarks.server import ROOT
from tests.builders import LETTERS, publish_random, reference
from tests.plain import recognise

KEY = "a key of sixteen letters or more"
LANGUAGES = ("be", "bg", "cs", "de", "en", "es", "fr", "ru")
VERSIONS = 3
CLEAR = 1e-3  # logits: a frame whose best two tokens are nearer may go either way in another batch


@dataclass(frozen=True)
class Version:
    """One version of an adapter: the files that publish it, what it says of each clip, alone, and of which of them it
    must say that in any batch."""

    version: str
    files: dict[str, bytes]
    texts: dict[str, str]
    clear: frozenset[str]


@dataclass(frozen=True)
class World:
    """A model of many adapters, each in several versions, and recordings of real speech."""

    folder: Path
    clips: dict[str, bytes]
    versions: dict[str, list[Version]]

    @property
    def told_apart(self) -> float:
        """The smallest share of clips, of any language, on which any two of its versions say different things."""
        pairs = [pair for made in self.versions.values() for pair in combinations(made, 2)]
        return min(sum(one.texts[n] != other.texts[n] for n in self.clips) / len(self.clips) for one, other in pairs)


def make_world(folder: Path) -> World:
    """The model in ``folder``, with the last version of each adapter published."""
    model = reference("wav2vec2-pre-norm-group")
    getattr(model, model.base_model_prefix).save_pretrained(folder / "backbone")
    encoder = load_backbone(folder / "backbone")
    samples = {path.stem: _speech(path) for path in sorted((ROOT / "examples").glob("*.ogg"))}
    clips = {name: _wav(folder / "clip.wav", one) for name, one in samples.items()}
    versions = {
        language: [_version(folder, encoder, language, number, samples) for number in range(VERSIONS)]
        for language in LANGUAGES
    }
    return World(folder, clips, versions)


def _speech(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    found: np.ndarray = soxr.resample(samples, rate, 16_000)[:24_000]
    return np.round(found * 32767).astype(np.int16).astype(np.float32) / 32768


def _wav(path: Path, samples: np.ndarray) -> bytes:
    soundfile.write(path, (samples * 32768).astype(np.int16), 16_000)
    content = path.read_bytes()
    path.unlink()
    return content


@torch.inference_mode()
def _version(folder: Path, encoder: Encoder, language: str, number: int, samples: dict[str, np.ndarray]) -> Version:
    vocab = Vocab(("<pad>", "|", *LETTERS["ru" if language in ("be", "bg", "ru") else "es"]))
    config = AdapterConfig("bottleneck", (4, 8, 16)[number], top_layers(4, 2), "adapted", vocab.size)
    seed = LANGUAGES.index(language) * VERSIONS + number
    publish_random(folder, language, config, vocab, encoder, seed=seed)
    store = AdapterStore(folder / "adapters")
    record = store.record(language)
    loaded = store.load(record, size=encoder.size)
    bank = Bank(encoder.size, limit=1)
    worn = bank.dress([bank.seat(config, loaded.tensors)])
    texts, clear = {}, set()
    for name, one in samples.items():
        best = encoder(pad([one]), worn)[0].topk(2).values
        if float((best[:, 0] - best[:, 1]).min()) >= CLEAR:
            clear.add(name)
        path = BestPath.join(recognise(encoder, [window], worn)[0] for window in cut([one], encoder.geometry))
        texts[name] = transcript(path, vocab, frame_s=0.02, duration_s=one.size / 16_000).text
    there = folder / "adapters" / language
    files = {
        "adapter.json": (there / "adapter.json").read_bytes(),
        "weights": (there / record.weights.name).read_bytes(),
        "vocab": (there / record.vocab.name).read_bytes(),
    }
    return Version(record.version, files, texts, frozenset(clear))
