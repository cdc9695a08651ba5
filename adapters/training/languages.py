"""Telling languages apart: a head is fitted on the trunk, then weighed against what the adapters hear.

The head is a multinomial logistic regression on the letters that seem to be said in the clips of the train split. How
sure it may be is fitted on the dev split, and there too, on what the head shortlists, the weights of head and score and
an offset a language. Every language counts alike. The report is of the test split.

A language with one voice can be told by its voice: where a language has several sources, each of them is left out in
turn, and reported on by a head that never heard it. The backbone and the adapters have, so even that flatters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.backbone import fingerprint
from adapters.errors import DataError
from adapters.language_head import Calibration, LanguageHead
from adapters.training.listener import Heard, Listener
from adapters.training.manifest import Clip, read_manifest

try:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
except ModuleNotFoundError as error:
    raise DataError(f"training needs {str(error.name).partition('.')[0]}: pip install 'tongues[train]'") from error

_STRENGTH = 1e-3
_VARIATIONS = 2
_ENOUGH_S, _LEAST_S = 240.0, 120.0
_OFFSET_PENALTY = 0.1
_WEIGHT_PENALTY = 0.01
"""Of how far a weight is from what it usually is, in logarithms: with few clips to go by it would run off."""


def train_language_head(
    models: Path,
    manifest: Path,
    *,
    also: Sequence[Path] = (),
    device: str = "cpu",
    announce: Callable[[str], None] = lambda line: None,
) -> LanguageHead:
    """A head over every language that has a default adapter in ``models`` and clips in ``manifest``, or where that has
    none, in ``also``.

    ``announce`` is told what is going on. Raises :class:`~adapters.errors.DataError` where there are fewer than two
    languages, or no clips of one to train on or to weigh by, and :class:`~adapters.errors.BackboneError` where the
    backbone has no CTC head beside it.
    """
    clips = read_manifest(manifest)
    recorded = {clip.language for clip in clips}
    clips += [clip for path in also for clip in read_manifest(path) if clip.language not in recorded]
    listener = Listener(models, sorted({clip.language for clip in clips}), manifest.parent / "cache", device)
    announce(f"{len(listener.languages)} languages: {', '.join(listener.languages)}")
    clips = [clip for clip in clips if clip.language in listener.languages]
    split = {name: [clip for clip in clips if clip.split == name] for name in ("train", "dev", "test")}
    for name in ("train", "dev"):
        if without := set(listener.languages) - {clip.language for clip in split[name]}:
            heard = ", ".join(map(str, (manifest, *also)))
            raise DataError(f"{heard}: no {name} clips of {', '.join(sorted(without))}, which has an adapter")
    train = listener.hear(_some(split["train"]), variations=_VARIATIONS, scored=False)
    announce(f"heard {len(train.clips)} clips to train on, variations counted")
    dev = listener.hear(split["dev"], variations=1, scored=True)
    test = listener.hear(split["test"], variations=1, scored=True)
    announce(f"heard {len(dev.clips)} and {len(test.clips)} clips in every language, to weigh and to report")
    head, score = _weighed(listener, fingerprint(models / "backbone"), train, dev)
    report = _report(head, score, test)
    report["held_out"] = {}
    for language, source in _held_out(split["train"]):
        others, theirs = (_kept(heard, language, source) for heard in (train, dev))
        found = _weighed(listener, head.fingerprint, others, theirs)
        unheard = _joined(*(_kept(heard, language, source, only=True) for heard in (dev, test)))
        if len(unheard.clips):
            report["held_out"][f"{language}/{source}"] = _report(*found, unheard)
    return replace(head, report=report)


def _weighed(listener: Listener, fingerprint: str, train: Heard, dev: Heard) -> tuple[LanguageHead, Calibration]:
    """A head fitted on one and weighed on the other, and how the score would decide alone."""
    weight, bias = _fit(train, dev)
    head = LanguageHead(
        layer=listener.layer,
        languages=listener.languages,
        letters=listener.letters,
        weight=torch.from_numpy(weight),
        bias=torch.from_numpy(bias),
        calibration=Calibration(1.0, 0.0, (0.0,) * len(listener.languages)),
        fingerprint=fingerprint,
    )
    everyone = range(len(head.languages))
    both, score = (_calibrate(head, dev, everyone, shortlisted=shortlisted) for shortlisted in (True, False))
    return replace(head, calibration=both), score


def _held_out(train: Sequence[Clip]) -> list[tuple[str, str]]:
    """Every source of a language of which there is enough without it."""
    pairs = sorted({(clip.language, clip.source) for clip in train})

    def rest_s(language: str, source: str) -> float:
        return sum(clip.seconds for clip in train if clip.language == language and clip.source != source)

    return [pair for pair in pairs if rest_s(*pair) >= _LEAST_S]


def _kept(heard: Heard, language: str, source: str, *, only: bool = False) -> Heard:
    """Without the clips of a source of a language, or with them alone."""
    index = [i for i, c in enumerate(heard.clips) if ((c.language, c.source) == (language, source)) == only]
    scores = heard.scores[index] if len(heard.scores) else heard.scores
    return Heard([heard.clips[i] for i in index], heard.letters[index], scores, heard.truth[index])


def _joined(one: Heard, other: Heard) -> Heard:
    parts = ((getattr(one, name), getattr(other, name)) for name in ("letters", "scores", "truth"))
    return Heard([*one.clips, *other.clips], *map(np.concatenate, parts))


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


def _fit(train: Heard, dev: Heard) -> tuple[np.ndarray, np.ndarray]:
    """Weight (L, K) and bias (L,) of the head. Strongly regularised, since what is lost on voices that it knows is
    little and what is gained on others much; then scaled so that its probabilities hold on the dev clips."""
    scaler = StandardScaler().fit(train.letters)
    model = LogisticRegression(C=_STRENGTH, max_iter=500, class_weight="balanced")
    model.fit(scaler.transform(train.letters), train.truth)
    weight, bias = model.coef_ / scaler.scale_, model.intercept_
    if len(weight) == 1:  # of two languages it gives the odds of the second
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    bias = bias - weight @ scaler.mean_
    logits = dev.letters @ weight.T + bias

    def loss(scale: float) -> float:
        told = scale * logits - np.logaddexp.reduce(scale * logits, axis=1, keepdims=True)
        return -float(np.average(told[range(len(dev.truth)), dev.truth], weights=_balance(dev.truth)))

    scale = min(np.geomspace(0.25, 16, 49), key=loss)
    return (scale * weight).astype(np.float32), (scale * bias).astype(np.float32)


def _balance(truth: np.ndarray) -> np.ndarray:
    """(N,) weights by which every language counts alike."""
    return (1 / np.bincount(truth)[truth]).astype(np.float32)  # type: ignore[no-any-return]


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
    counts = torch.from_numpy(_balance(heard.truth[index]))
    usual, far = torch.tensor([1.0, 10.0]), torch.zeros(2, requires_grad=True)  # weights above 0, both
    offsets = torch.zeros(len(among), requires_grad=True)
    optimiser = torch.optim.LBFGS([far, offsets], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        weights = usual * far.exp()
        odds = weights[0] * from_head + weights[1] * from_score + offsets + allowed
        each = torch.nn.functional.cross_entropy(odds, truth, reduction="none")
        found = (each * counts).sum() / counts.sum() + _OFFSET_PENALTY * offsets.square().mean()
        found = found + _WEIGHT_PENALTY * far.square().sum()
        torch.autograd.backward(found)
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    first, second = (usual * far.detach().exp()).tolist()
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
            language: {
                "clips": int((long & (heard.truth == number)).sum()),
                **{way: _share(right[long & (heard.truth == number)]) for way, right in ways.items()},
            }
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
