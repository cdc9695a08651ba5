"""Which language is it? A small head on the trunk, and how it is weighed against what the candidates' adapters hear.

The head reads the output of the trunk, which is the same for every language and runs anyway, and shortlists; the
candidates' tops then run side by side on that same output. How far the best path of each is to be believed is fitted on
clips that neither saw: see :mod:`adapters.training.languages`.

What it reads is how often each letter of any language seems to be said, by the CTC head that the backbone was
pretrained with, half way up. Means and deviations of the states themselves tell the languages of a corpus apart as
well, and fail on a voice or a microphone that is new: where a language has few voices, they are of voices.

    MODEL/languages/languages.json           the commit record: layer, languages, calibration, the file by hash
    MODEL/languages/weights-HASH.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from adapters.config import BackboneSize
from adapters.durable import read_inside, write_whole
from adapters.encoder import Frames
from adapters.errors import AdapterFormatError, LanguageHeadError
from adapters.frontend import valid_mask
from adapters.language import language_key
from adapters.record import StoredFile

FORMAT = 1
MOST_CANDIDATES = 4
COVER = 0.98  #: candidates are added until the head gives them so much together
_RECORD = "languages.json"
_MOST_BYTES = 1 << 26
_LETTERS = ("weight", "bias", "norm_weight", "norm_bias")


@dataclass(frozen=True)
class Calibration:
    """The log odds of candidate ``l`` are ``head * log p(l | trunk) + score * s(l) + offsets[l]``, where ``s(l)`` is
    the mean log probability of a frame of its best path."""

    head: float
    score: float
    offsets: tuple[float, ...]


@dataclass(frozen=True)
class Letters:
    """What seems to be said in a state, whatever the language: a layer norm and a CTC head over K letters of many.

    ``weight`` (K + 1, D) and ``bias`` (K + 1,), the blank first; ``norm_weight`` and ``norm_bias`` (D,).
    """

    weight: Tensor
    bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor

    def pooled(self, frames: Frames) -> Tensor:
        """States (B, T, D) -> the square root of each letter's share of all that is said in a row, (B, K), in float32.
        What lies behind a row's end does not count."""
        x = frames.hidden.float()
        x = F.layer_norm(x, x.shape[2:], self.norm_weight, self.norm_bias)
        said = F.linear(x, self.weight, self.bias).softmax(dim=2)[:, :, 1:]  # (B, T, K)
        valid = valid_mask(frames.lengths, x.shape[1], x.device)
        if valid is not None:
            said = said.masked_fill(~valid[:, :, None], 0)
        amount = said.sum(dim=1)  # (B, K)
        return (amount / amount.sum(dim=1, keepdim=True).clamp(min=1e-3)).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """By their names on disk."""
        return {f"letters.{name}": getattr(self, name) for name in _LETTERS}


@dataclass(frozen=True)
class LanguageHead:
    """For a backbone of D-wide states: reads the output of the layers below ``layer`` as ``letters``.

    ``weight`` (L, K) and ``bias`` (L,) for L ``languages``. ``fingerprint`` is the backbone's. ``report`` is free JSON:
    how often it was right.
    """

    layer: int
    languages: tuple[str, ...]
    letters: Letters
    weight: Tensor
    bias: Tensor
    calibration: Calibration
    fingerprint: str
    report: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, frames: Frames) -> Tensor:
        """The trunk's output, (B, T, D) -> log probabilities (B, L), in float32."""
        return F.log_softmax(F.linear(self.letters.pooled(frames), self.weight, self.bias), dim=1)

    def to(self, device: torch.device | str) -> LanguageHead:
        """The same on another device."""
        letters = Letters(*(getattr(self.letters, name).to(device) for name in _LETTERS))
        return replace(self, letters=letters, weight=self.weight.to(device), bias=self.bias.to(device))

    def index(self, language: str) -> int | None:
        """The number of a language, by its key (``pt`` for ``pt-BR``); None for one that it does not know."""
        key = language_key(language)
        found = [number for number, known in enumerate(self.languages) if language_key(known) == key]
        return found[0] if found else None

    def shortlist(self, log_probabilities: np.ndarray, among: Collection[int]) -> list[int]:
        """The fewest of ``among``, numbers of languages, that hold :data:`COVER` of what the head gives them all; at
        most :data:`MOST_CANDIDATES`, the likeliest first."""
        order = sorted(among, key=lambda number: -log_probabilities[number])
        shares = np.exp(log_probabilities[order] - np.logaddexp.reduce(log_probabilities[order]))
        needed = int(np.searchsorted(np.cumsum(shares), COVER)) + 1
        return order[: min(needed, MOST_CANDIDATES)]

    def probabilities(
        self, log_probabilities: np.ndarray, candidates: Sequence[int], scores: Sequence[float]
    ) -> list[float]:
        """Of each candidate, from the head's (L,) log probabilities and the scores of their best paths: together as
        much as the head gives the candidates among all languages."""
        found = np.array(candidates)
        odds = self.calibration.head * log_probabilities[found] + self.calibration.score * np.array(scores)
        odds = odds + np.array(self.calibration.offsets)[found]
        share = np.exp(np.logaddexp.reduce(log_probabilities[found]))
        each: list[float] = (share * np.exp(odds - np.logaddexp.reduce(odds))).tolist()
        return each

    def save(self, folder: Path) -> None:
        """Write it to ``folder``: the weights first, the record that names them last."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight, "bias": self.bias, **self.letters.tensors()}
        content = safetensors.torch.save({name: tensor.float().contiguous().cpu() for name, tensor in tensors.items()})
        weights = StoredFile.of("weights", "safetensors", content)
        write_whole(folder / weights.name, content)
        record = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "layer": self.layer,
            "languages": self.languages,
            "calibration": {
                "head": self.calibration.head,
                "score": self.calibration.score,
                "offsets": self.calibration.offsets,
            },
            "weights": {"name": weights.name, "sha256": weights.sha256, "size_bytes": weights.size_bytes},
            "report": self.report,
        }
        write_whole(folder / _RECORD, (json.dumps(record, indent=2) + "\n").encode())
        for old in folder.glob("weights-*.safetensors"):
            if old.name != weights.name:
                old.unlink()


def load_language_head(folder: Path, *, fingerprint: str, size: BackboneSize) -> LanguageHead:
    """The head in ``folder``, checked against the backbone. Raises :class:`~adapters.errors.LanguageHeadError`."""
    try:
        record = json.loads(read_inside(folder, _RECORD, _MOST_BYTES))
        if record["format"] != FORMAT:
            raise LanguageHeadError(f"{folder}: format {record['format']!r}, and {FORMAT} is what is known here")
        stored = record["weights"]
        content = read_inside(folder, stored["name"], _MOST_BYTES)
        if StoredFile.of("weights", "safetensors", content).sha256 != stored["sha256"]:
            raise LanguageHeadError(f"{folder}: {stored['name']} is not the file that {_RECORD} names")
        tensors = safetensors.torch.load(content)
        told = record["calibration"]
        head = LanguageHead(
            layer=int(record["layer"]),
            languages=tuple(map(str, record["languages"])),
            letters=Letters(*(tensors[f"letters.{name}"].float() for name in _LETTERS)),
            weight=tensors["weight"].float(),
            bias=tensors["bias"].float(),
            calibration=Calibration(float(told["head"]), float(told["score"]), tuple(map(float, told["offsets"]))),
            fingerprint=str(record["fingerprint"]),
            report=record.get("report", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, AdapterFormatError) as error:
        raise LanguageHeadError(f"{folder}: cannot be read: {type(error).__name__}: {error}") from error
    count = len(head.languages)
    if head.fingerprint != fingerprint:
        raise LanguageHeadError(f"{folder}: made for the backbone {head.fingerprint}, and this is {fingerprint}")
    spoken, hidden = head.letters.weight.shape[0], size.hidden
    shapes = {
        "weight": (count, spoken - 1),
        "bias": (count,),
        "letters.weight": (spoken, hidden),
        "letters.bias": (spoken,),
        "letters.norm_weight": (hidden,),
        "letters.norm_bias": (hidden,),
    }
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise LanguageHeadError(f"{folder}: {name} has the shape {tuple(tensors[name].shape)}, not {shape}")
        if not torch.isfinite(tensors[name]).all():
            raise LanguageHeadError(f"{folder}: {name} holds what is no number")
    if len(head.calibration.offsets) != count or not 0 < head.layer <= size.layers:
        raise LanguageHeadError(f"{folder}: {_RECORD} does not fit itself or the {size.layers} layers of the backbone")
    return head
