"""Telling languages apart: a head is fitted on the trunk, then weighed against what the adapters hear.

The head is a multinomial logistic regression on the letters that seem to be said in the clips of the train split; its
regularisation is chosen on the dev split. There too, on what the head shortlists, the weights of head and score and an
offset a language are fitted. The report is of the test split.

A language with one voice can be told by its voice: ``held_out`` leaves sources out of everything and reports on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from adapters.backbone import fingerprint, load_backbone, read_normalised
from adapters.bank import Bank, Seat
from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder
from adapters.errors import ChoiceError, DataError
from adapters.frontend import SAMPLE_RATE, few_widths, pad
from adapters.language_head import Calibration, LanguageHead, Letters
from adapters.registry import RegisteredAdapter, Registry
from adapters.store import AdapterStore
from adapters.training.backbone_folder import read_head
from adapters.training.data import AudioCache, Augmentation, epoch_batches
from adapters.training.manifest import Clip, read_manifest

LONG_S = 2.0  #: from here on a clip counts for what is aimed at
_STRENGTHS = (1e-3, 1e-2, 1e-1)
_VARIATIONS = 2
_ENOUGH_S = 480.0
_BATCH_S = 30
_AUGMENTATION = Augmentation(speed=0.1, telephone=0.15, noise=0.15, filter=0.3)
_OFFSET_PENALTY = 0.01


@dataclass(frozen=True)
class Heard:
    """Clips with their letters, pooled (N, K), and the score of each language's best path (N, L), if that was asked
    for; ``truth`` (N,) are numbers of languages."""

    clips: list[Clip]
    letters: np.ndarray
    scores: np.ndarray
    truth: np.ndarray

    @property
    def long(self) -> np.ndarray:
        """(N,) bool: clips of :data:`LONG_S` and more."""
        return np.array([clip.seconds >= LONG_S for clip in self.clips], dtype=bool)


def train_language_head(
    models: Path,
    manifest: Path,
    *,
    held_out: Collection[tuple[str, str]] = (),
    device: str = "cpu",
    announce: Callable[[str], None] = lambda line: None,
) -> LanguageHead:
    """A head over every language that has a default adapter in ``models`` and clips in ``manifest``.

    ``held_out``: pairs of language and source that nothing is fitted on; the report is of them alone. ``announce`` is
    told what is going on. Raises :class:`~adapters.errors.DataError` where there are fewer than two languages, or no
    clips of what is held out, and
    :class:`~adapters.errors.BackboneError` where the backbone has no CTC head beside it.
    """
    listener = _Listener(models, manifest, device)
    announce(f"{len(listener.languages)} languages: {', '.join(listener.languages)}")
    clips = [clip for clip in read_manifest(manifest) if clip.language in listener.languages]
    kept = [clip for clip in clips if (clip.language, clip.source) not in held_out]
    out = [clip for clip in clips if (clip.language, clip.source) in held_out and clip.split != "train"]
    if held_out and not out:
        raise DataError(f"{manifest}: no clips of {', '.join('/'.join(pair) for pair in sorted(held_out))}")
    split = {name: [clip for clip in kept if clip.split == name] for name in ("train", "dev", "test")}
    train = listener.hear(_some(split["train"]), variations=_VARIATIONS, scored=False)
    announce(f"heard {len(train.clips)} clips to train on, variations counted")
    dev = listener.hear(split["dev"], variations=1, scored=True)
    test = listener.hear(out or split["test"], variations=1, scored=True)
    announce(f"heard {len(dev.clips)} and {len(test.clips)} clips in every language, to weigh and to report")
    weight, bias = _fit(train, dev)
    head = LanguageHead(
        layer=listener.layer,
        languages=listener.languages,
        letters=listener.letters,
        weight=torch.from_numpy(weight),
        bias=torch.from_numpy(bias),
        calibration=Calibration(1.0, 0.0, (0.0,) * len(listener.languages)),
        fingerprint=fingerprint(models / "backbone"),
    )
    both = _calibrate(head, dev, range(len(head.languages)), shortlisted=True)
    score = _calibrate(head, dev, range(len(head.languages)), shortlisted=False)
    return _with(head, both, _report(_with(head, both, {}), score, test))


def _some(clips: Sequence[Clip]) -> list[Clip]:
    """At most :data:`_ENOUGH_S` of each language and source, drawn at random."""
    seconds: dict[tuple[str, str], float] = {}
    kept = []
    for index in np.random.default_rng(0).permutation(len(clips)):
        clip = clips[index]
        sofar = seconds.get((clip.language, clip.source), 0.0)
        if sofar < _ENOUGH_S:
            kept.append(clip)
            seconds[clip.language, clip.source] = sofar + clip.seconds
    return kept


class _Listener:
    """Runs the trunk, and the top of every language."""

    def __init__(self, models: Path, manifest: Path, device: str) -> None:
        self._encoder: Encoder = load_backbone(models / "backbone", device=device)
        self._normalised = read_normalised(models / "backbone")
        self._cache = manifest.parent / "cache"
        self._device = device
        sizes = self._encoder.hidden_size, self._encoder.layer_count
        registry = Registry([AdapterStore(models / "adapters")], fingerprint(models / "backbone"), *sizes)
        found: dict[str, RegisteredAdapter] = {}
        for language in sorted({clip.language for clip in read_manifest(manifest)}):
            try:
                found[language] = registry.resolve(language=language)
            except ChoiceError:
                continue
        if len(found) < 2:
            raise DataError(
                f"{models}: adapters for at least two languages of {manifest} are needed to tell them apart"
            )
        self.languages = tuple(found)
        self.letters = _letters(models / "backbone", self._encoder)
        self._bank = Bank(*sizes, limit=len(found), device=torch.device(device))
        self._seats: list[Seat] = []
        for adapter in found.values():
            loaded = registry.load(adapter)
            self._seats.append(self._bank.seat(loaded.record.config, loaded.tensors))
        self.layer = min(seat.lowest_layer for seat in self._seats)
        if self.layer == 0:
            raise DataError(f"{models}: an adapter changes the lowest layer, so there is no trunk to tell languages by")

    @torch.inference_mode()
    def hear(self, clips: Sequence[Clip], *, variations: int, scored: bool) -> Heard:
        """Every clip in each variation, the first of them the clip itself."""
        if not clips:
            raise DataError("train, dev and test each need clips to tell languages by")
        cache = AudioCache(clips, self._cache)
        count = len(clips) * variations
        letters = np.zeros((count, len(self.letters.bias) - 1), dtype=np.float32)
        scores = np.zeros((count if scored else 0, len(self.languages)), dtype=np.float32)
        lengths = [cache.length(row % len(clips)) for row in range(count)]
        for rows in epoch_batches(lengths, _BATCH_S * SAMPLE_RATE, seed=0, epoch=0):
            waves = [self._wave(cache, row) for row in rows]
            audio = pad(waves, normalised=self._normalised, width=few_widths).to(self._device)
            frames = self._encoder.trunk(audio, self.layer)
            letters[rows] = self.letters.pooled(frames).cpu().numpy()
            for number in range(len(self.languages) if scored else 0):
                worn = self._bank.dress([self._seats[number]] * len(rows))
                ids, best = (found.cpu().numpy() for found in best_tokens(self._encoder.top(frames, worn)))
                for place, (row, length) in enumerate(zip(rows, frames.lengths, strict=True)):
                    path = BestPath(ids[place, :length], best[place, :length])
                    scores[row, number] = path.log_probability / length
        truth = np.array([self.languages.index(clip.language) for clip in clips] * variations)
        return Heard(list(clips) * variations, letters, scores, truth)

    def _wave(self, cache: AudioCache, row: int) -> np.ndarray:
        variation, index = divmod(row, len(cache))
        samples = cache.samples(index)
        return _AUGMENTATION(samples, np.random.default_rng([variation, index])) if variation else samples


def _letters(backbone: Path, encoder: Encoder) -> Letters:
    """The CTC head that lies beside the backbone, blank first, and the norm below it."""
    head, vocab = read_head(backbone)
    order = [vocab.blank, *(row for row in range(vocab.size) if row != vocab.blank)]
    norm = encoder.model.encoder.layer_norm
    return Letters(head["weight"].float()[order], head["bias"].float()[order], norm.weight.float(), norm.bias.float())


def _fit(train: Heard, dev: Heard) -> tuple[np.ndarray, np.ndarray]:
    """Weight (L, 2D) and bias (L,) of the head that is best on the dev clips, of a few strengths of regularisation."""
    scaler = StandardScaler().fit(train.letters)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for strength in _STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=500, class_weight="balanced")
        model.fit(scaler.transform(train.letters), train.truth)
        loss = -float(np.mean(model.predict_log_proba(scaler.transform(dev.letters))[range(len(dev.truth)), dev.truth]))
        if best is None or loss < best[0]:
            weight, bias = model.coef_ / scaler.scale_, model.intercept_
            if len(weight) == 1:  # of two languages it gives the odds of the second
                weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
            best = loss, weight, bias - weight @ scaler.mean_
    assert best is not None
    return best[1].astype(np.float32), best[2].astype(np.float32)


def _calibrate(head: LanguageHead, heard: Heard, among: Sequence[int], *, shortlisted: bool) -> Calibration:
    """Weights of head and score and the offsets, by the likelihood of the right language among the candidates: those
    of the shortlist, or all of them by their scores alone."""
    told = _told(head, heard)
    rows = []
    for row, truth in enumerate(heard.truth):
        candidates = head.shortlist(told[row], among) if shortlisted else list(among)
        if truth in candidates and len(candidates) > 1:
            rows.append((row, candidates))
    allowed = torch.full((len(rows), len(among)), -torch.inf)
    for place, (_, candidates) in enumerate(rows):
        allowed[place, candidates] = 0.0
    index = [row for row, _ in rows]
    from_head = torch.from_numpy(told[index]) if shortlisted else torch.zeros(len(rows), len(among))
    from_score, truth = torch.from_numpy(heard.scores[index]), torch.from_numpy(heard.truth[index])
    weights = torch.tensor([1.0, 10.0], requires_grad=True)
    offsets = torch.zeros(len(among), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, offsets], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        odds = weights[0] * from_head + weights[1] * from_score + offsets + allowed
        found = torch.nn.functional.cross_entropy(odds, truth) + _OFFSET_PENALTY * offsets.square().mean()
        torch.autograd.backward(found)
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    first, second = weights.tolist()
    return Calibration(first if shortlisted else 0.0, second, tuple(offsets.tolist()))


def _report(head: LanguageHead, score: Calibration, heard: Heard) -> dict[str, Any]:
    """How often each way is right, over all clips and over those of :data:`LONG_S` and more, for each language too."""
    told = _told(head, heard)
    everyone = list(range(len(head.languages)))
    chosen = []
    counts = []
    for row in range(len(heard.truth)):
        candidates = head.shortlist(told[row], everyone)
        odds = head.probabilities(told[row], candidates, [float(heard.scores[row, c]) for c in candidates])
        chosen.append(candidates[int(np.argmax(odds))])
        counts.append(len(candidates))
    ways = {
        "head": told.argmax(axis=1) == heard.truth,
        "score": (score.score * heard.scores + np.array(score.offsets)).argmax(axis=1) == heard.truth,
        "both": np.array(chosen) == heard.truth,
    }
    long = heard.long
    return {
        "clips": len(heard.truth),
        "clips_long": int(long.sum()),
        "candidates": round(float(np.mean(counts)), 2),
        "all": {way: _share(right) for way, right in ways.items()},
        "long": {way: _share(right[long]) for way, right in ways.items()},
        "languages": {
            language: {way: _share(right[long & (heard.truth == number)]) for way, right in ways.items()}
            for number, language in enumerate(head.languages)
            if bool((long & (heard.truth == number)).any())
        },
    }


def _share(right: np.ndarray) -> float:
    return round(float(right.mean()), 4) if right.size else 0.0


def _told(head: LanguageHead, heard: Heard) -> np.ndarray:
    logits = heard.letters @ head.weight.numpy().T + head.bias.numpy()
    told: np.ndarray = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return told


def _with(head: LanguageHead, calibration: Calibration, report: dict[str, Any]) -> LanguageHead:
    return replace(head, calibration=calibration, report=report)
