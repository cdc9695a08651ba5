"""Requests, publishing and eviction against each other, on a service in a process of its own.

Clients ask for adapters at random while others republish them; there are seats for less than half. Every answer must be
the solo answer of a version that was current while it ran.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import soxr
import torch

from adapters.backbone import fingerprint, load_backbone, read_normalised
from adapters.bank import Bank
from adapters.config import AdapterConfig, top_layers
from adapters.ctc import BestPath, transcript
from adapters.encoder import Encoder
from adapters.frontend import pad
from adapters.recognise import recognise
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from adapters.windows import cut
from benchmarks.server import ROOT, serving
from tests.builders import LETTERS, publish_random, reference

KEY = "a key of sixteen letters or more"
LANGUAGES = ("be", "bg", "cs", "de", "en", "es", "fr", "ru")
VERSIONS = 3
SEATS = 3
CLEAR = 1e-3  # logits: a frame whose best two tokens are nearer may go either way in another batch


@dataclass(frozen=True)
class Version:
    """One version of an adapter: the files that publish it, and what it says of each clip, alone."""

    version: str
    files: dict[str, bytes]
    texts: dict[str, str]


@dataclass
class World:
    """A model of many adapters, each in several versions, and recordings of real speech."""

    folder: Path
    clips: dict[str, bytes]
    versions: dict[str, list[Version]]
    current: dict[str, list[tuple[float, str]]] = field(default_factory=dict)

    def allowed(self, language: str, began: float, ended: float) -> set[str]:
        """Versions that may have been current at some time between: from when their publishing began until that of the
        next was through."""
        changes = self.current[language]
        return {
            version
            for number, (since, version) in enumerate(changes)
            if since <= ended and (number + 2 >= len(changes) or changes[number + 2][0] >= began)
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("race")
    model = reference("wav2vec2-pre-norm-group")
    getattr(model, model.base_model_prefix).save_pretrained(folder / "backbone")
    encoder = load_backbone(folder / "backbone")
    samples = {name: _speech(name) for name in LANGUAGES if (ROOT / f"examples/{name}.ogg").exists()}
    clips = {name: _wav(folder / "clip.wav", one) for name, one in samples.items()}
    versions = {
        language: [_version(folder, encoder, language, number, samples) for number in range(VERSIONS)]
        for language in LANGUAGES
    }
    for language, made in versions.items():  # the race proves nothing where versions say the same
        for name in clips:
            told = [version.texts[name] for version in made if name in version.texts]
            assert len(set(told)) == len(told), (language, name)
    clear = sum(len(version.texts) for made in versions.values() for version in made)
    assert clear > 0.9 * len(clips) * len(LANGUAGES) * VERSIONS
    return World(folder, clips, versions)


def _speech(language: str) -> np.ndarray:
    samples, rate = soundfile.read(ROOT / f"examples/{language}.ogg", dtype="float32")
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
    loaded = store.load(record, hidden_size=encoder.hidden_size, layer_count=encoder.layer_count)
    bank = Bank(encoder.hidden_size, encoder.layer_count, limit=1)
    worn = bank.dress([bank.seat(config, loaded.tensors)])
    texts = {}
    for name, one in samples.items():
        best = encoder(pad([one]), worn)[0].topk(2).values
        if float((best[:, 0] - best[:, 1]).min()) < CLEAR:
            continue
        path = BestPath.join(recognise(encoder, [window], worn)[0] for window in cut([one], encoder.geometry))
        texts[name] = transcript(path, vocab, frame_s=0.02, duration_s=one.size / 16_000).text
    there = folder / "adapters" / language
    files = {
        "adapter.json": (there / "adapter.json").read_bytes(),
        "weights": (there / record.weights.name).read_bytes(),
        "vocab": (there / record.vocab.name).read_bytes(),
    }
    return Version(record.version, files, texts)


def race(world: World, tmp_path: Path, *, clients: int, requests: int) -> dict[str, float]:
    """Run it: how many requests, publishes and versions were seen, and the memory of the service after the first tenth
    and at the end."""
    folder = shutil.copytree(world.folder, tmp_path / "model")
    assert read_normalised(folder / "backbone") is not None
    assert fingerprint(folder / "backbone")
    world.current = {language: [(0.0, made[-1].version)] for language, made in world.versions.items()}
    by_version = {(lang, v.version): v for lang, made in world.versions.items() for v in made}
    environment = {
        "TONGUES_ADMIN_KEY": KEY,
        "TONGUES_DEVICE_SLOTS": str(SEATS),
        "TONGUES_HOST_BYTES": "100000",
        "TONGUES_LOG_LEVEL": "warning",
    }
    done, seen, published = threading.Event(), set(), 0
    lock = threading.Lock()
    left = iter(range(requests))
    wrong: list[str] = []
    memory: list[float] = []
    log = (tmp_path / "log").open("w")
    with log, serving("--models", str(folder), log=log, environment=environment) as address:

        def ask(number: int) -> None:
            chance = random.Random(number)
            with httpx.Client(base_url=address, timeout=120) as http:
                while True:
                    with lock:
                        count = next(left, None)
                    if count is None:
                        return
                    if count in (requests // 10, requests - 1):
                        memory.append(_memory(http))
                    language, clip = chance.choice(LANGUAGES), chance.choice(sorted(world.clips))
                    began = time.monotonic()
                    answer = http.post(f"/transcribe?adapter={language}", content=world.clips[clip])
                    ended = time.monotonic()
                    if answer.status_code != 200:
                        wrong.append(f"{answer.status_code} {answer.text}")
                        continue
                    version, text = answer.json()["version"], answer.json()["text"]
                    expected = by_version[language, version].texts.get(clip, text)
                    if text != expected:
                        wrong.append(f"{language} {version} {clip}: {text!r}, and alone {expected!r}")
                    with lock:
                        if version not in world.allowed(language, began, ended):
                            wrong.append(f"{language} {version} was not current: {world.current[language][-3:]}")
                    seen.add((language, version))

        def publish() -> None:
            nonlocal published
            every = [(language, version) for language, made in world.versions.items() for version in made]
            random.Random(-1).shuffle(every)
            with httpx.Client(base_url=address, timeout=120) as http:
                for language, version in itertools.cycle(every):
                    if done.is_set():
                        return
                    with lock:
                        world.current[language].append((time.monotonic(), version.version))
                    answer = http.put(
                        f"/adapters/{language}", files=version.files, headers={"Authorization": f"Bearer {KEY}"}
                    )
                    if answer.status_code != 201:
                        wrong.append(f"publishing: {answer.status_code} {answer.text}")
                    published += 1

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            with ThreadPoolExecutor(clients) as pool:
                list(pool.map(ask, range(clients)))
        finally:
            done.set()
            publisher.join()
    assert wrong == []
    assert "Traceback" not in (tmp_path / "log").read_text()
    return {"requests": requests, "publishes": published, "versions": len(seen), "first": memory[0], "last": memory[-1]}


def _memory(http: httpx.Client) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_requests_publishing_and_eviction_at_once(world: World, tmp_path: Path) -> None:
    figures = race(world, tmp_path, clients=8, requests=200)
    assert figures["publishes"] > 5
    assert figures["versions"] > len(LANGUAGES)


@pytest.mark.soak
def test_five_thousand_requests_of_thirty_two_clients(world: World, tmp_path: Path) -> None:
    figures = race(world, tmp_path, clients=32, requests=5_000)
    print(figures)  # with the memory of the service after a tenth of them and at the end
    assert figures["versions"] >= 0.9 * len(LANGUAGES) * VERSIONS
