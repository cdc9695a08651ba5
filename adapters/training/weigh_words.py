"""A language model for an adapter: made of sentences, weighed on the dev split, published with the adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adapters.backbone import fingerprint, load_backbone, read_normalised
from adapters.bank import Bank
from adapters.beam import BeamSearch
from adapters.decoding import GREEDY, Decoding
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE
from adapters.language import language_key
from adapters.language_model import LanguageModel, estimate
from adapters.record import AdapterRecord
from adapters.registry import Registry
from adapters.store import AdapterStore
from adapters.training.evaluate import Candidate, Rates, decoded, error_rates, hear_paths
from adapters.training.licence import check_licence, licence_of
from adapters.training.manifest import read_manifest
from adapters.training.precision import check_device
from adapters.vocab import Vocab

ALPHAS, BETAS = (0.2, 0.4, 0.7, 1.0), (0.0, 1.0, 2.5, 4.0)


def _announce_unspelled(sentences: Sequence[str], vocab: Vocab, announce: Callable[[str], None]) -> None:
    letters = {*"".join(vocab.tokens)}
    words = Counter(word for sentence in sentences for word in sentence.split())
    strange = [word for word, _ in words.most_common() if not set(vocab.spelling(word)) <= letters]
    if strange:
        count, total = sum(words[word] for word in strange), words.total()
        announce(
            f"{count} of {total} words have letters that the adapter never says, and are of no use: "
            f"{', '.join(strange[:5])}; sentences are normalised as its training texts were"
        )


@dataclass(frozen=True)
class Weighed:
    """The adapter's new version, and error rates of a split without the model and with it."""

    record: AdapterRecord
    alpha: float
    beta: float
    rates: dict[str, tuple[Rates, Rates]]


def add_language_model(
    models: Path,
    manifest: Path,
    name: str,
    sentences: Sequence[str] | bytes,
    *,
    order: int = 3,
    licence: str | None = None,
    device: str = "cpu",
    announce: Callable[[str], None] = lambda line: None,
) -> Weighed:
    """Give the adapter ``name`` of ``models`` a model of ``sentences``, or one that is ARPA text already.

    Its weight and the bonus of a word are those of a few that give the lowest WER on the dev split of ``manifest``.
    ``licence``: of the sentences, which the adapter is under from then on besides its own.
    Raises :class:`~adapters.errors.DataError` without dev clips of the language and for a model that cannot be used,
    :class:`~adapters.errors.DecodingUnavailable`, and what registry and store raise.
    """
    licence = None if licence is None else check_licence(licence)
    check_device(device)
    encoder = load_backbone(models / "backbone", device=device)
    store = AdapterStore(models / "adapters")
    registry = Registry([store], fingerprint(models / "backbone"), encoder.size)
    loaded = registry.load(registry.resolve(name=name))
    record = loaded.record
    key = language_key(record.language)
    spoken = [
        replace(clip, language=record.language)
        for clip in read_manifest(manifest)
        if language_key(clip.language) == key
    ]
    splits = {split: [clip for clip in spoken if clip.split == split] for split in ("dev", "test")}
    if not splits["dev"]:
        raise DataError(f"{manifest}: no dev clips of {record.language!r} to weigh words on")
    if not isinstance(sentences, bytes):
        _announce_unspelled(sentences, loaded.vocab, announce)
    arpa = sentences if isinstance(sentences, bytes) else estimate(sentences, order)
    BeamSearch(loaded.vocab, LanguageModel(arpa))  # what cannot be searched with need not be heard for
    bank = Bank(encoder.size, limit=1, device=torch.device(device))
    candidates = {record.language: Candidate(bank.seat(record.config, loaded.tensors), loaded.vocab)}
    normalised = read_normalised(models / "backbone")
    paths = {
        split: hear_paths(clips, candidates, encoder, bank, normalised=normalised, emissions=True)
        for split, clips in splits.items()
        if clips
    }
    frame_s = encoder.geometry.hop / SAMPLE_RATE

    def rates(split: str, decoding: Decoding, model: LanguageModel | None = None) -> Rates:
        adapter = {record.language: replace(loaded, language_model=model)}
        return error_rates(decoded(splits[split], paths[split], adapter, decoding, frame_s))

    tried = {}
    for alpha in ALPHAS:
        for beta in BETAS:
            found = rates("dev", Decoding(beam=True), LanguageModel(arpa, alpha, beta))
            tried[alpha, beta] = (found.wer, found.cer)
            announce(f"alpha {alpha:g}, beta {beta:g}: dev WER {found.wer:.1%}, CER {found.cer:.1%}")
    alpha, beta = min(tried, key=lambda weights: tried[weights])
    model = LanguageModel(arpa, alpha, beta)
    both = {split: (rates(split, GREEDY), rates(split, Decoding(beam=True), model)) for split in paths}
    published = store.publish(
        name,
        loaded.tensors,
        loaded.vocab,
        language=record.language,
        config=record.config,
        fingerprint=record.fingerprint,
        default=record.default,
        metrics={**record.metrics, **{f"{split}, beam": with_it.metrics() for split, (_, with_it) in both.items()}},
        training=record.training,
        licence=licence_of([record.licence, licence]),
        synthetic=record.synthetic,
        language_model=model,
        size=encoder.size,
    )
    return Weighed(published, alpha, beta, both)
