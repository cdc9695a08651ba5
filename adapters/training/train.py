"""One adapter for one language on a frozen backbone.

The layers below the adapted ones are the same for every step, so their output is computed once for several variations
of each clip and kept; every step starts there. What is saved is the version with the lowest CER on the dev split, the
start among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.backbone import fingerprint, load_backbone, read_normalised
from adapters.bank import Bank
from adapters.config import AdapterConfig, Norms, top_layers
from adapters.encoder import Encoder
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE
from adapters.language import language_tag
from adapters.record import AdapterRecord, check_name
from adapters.shapes import parameter_count
from adapters.store import AdapterStore
from adapters.training.backbone_folder import start_head
from adapters.training.data import AudioCache, Augmentation, epoch_batches, text_key
from adapters.training.evaluate import Candidate, error_rates, hear
from adapters.training.losses import ctc_loss
from adapters.training.manifest import Clip, read_manifest
from adapters.training.precision import prefers_bfloat16, tune_cpu
from adapters.training.progress import Progress
from adapters.training.run_folder import claim, load_checkpoint, save_checkpoint
from adapters.training.schedule import schedule
from adapters.training.trunk import run_trunk
from adapters.vocab import Vocab

_EVERY = 100


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what comes out; saved with the adapter.

    ``layers``: how many layers from the top are adapted, None for the top half. ``variations``: how many variations of
    each clip the steps draw from, the first of them the clip itself. ``sources``: train on these sources alone.
    """

    method: str = "bottleneck"
    size: int = 32
    layers: int | None = None
    norms: Norms = "adapted"
    lr: float = 2e-3
    steps: int = 600
    batch_s: float = 24.0
    variations: int = 3
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(speed=0.15, telephone=0.15, noise=0.15, filter=0.3)
    )
    sources: tuple[str, ...] = ()
    seed: int = 0


def train(
    manifest: Path,
    models: Path,
    language: str,
    folder: Path,
    config: TrainConfig | None = None,
    *,
    name: str | None = None,
    device: str = "cpu",
) -> AdapterRecord:
    """Train an adapter for ``language`` on ``models``/backbone, and publish it in ``models``/adapters as ``name``.

    ``folder`` keeps checkpoints: the same call again goes on where the last one stopped. It becomes the default of its
    language where it is named for it.
    Raises :class:`~adapters.errors.DataError` for a manifest without usable clips of the language, or a folder with
    another run in it,
    :class:`~adapters.errors.BackboneError` for a folder without a backbone.
    """
    config = config or TrainConfig()
    check_name(name or language)
    if language_tag(language) is None:
        raise DataError(f"{language!r} is not the tag of a language, such as 'de'")
    if device == "cpu":
        tune_cpu()
    bfloat16 = prefers_bfloat16(device)
    backbone = models / "backbone"
    encoder = load_backbone(backbone, device=device)
    normalised = read_normalised(backbone)
    clips = _clips(manifest, language, config)
    vocab = Vocab.from_texts(clip.text for clip in clips["train"])
    worn = AdapterConfig(
        method=config.method,
        size=config.size,
        layers=_layers(encoder, config) if config.method != "head" else (),
        norms=config.norms,
        vocab_size=vocab.size,
    )
    torch.manual_seed(config.seed)
    adapter = Adapter(worn, encoder.hidden_size, encoder.layer_count).to(device)
    adapter.start_from(encoder.model.encoder.layers)
    start_head(backbone, vocab, adapter.tensors()["head.weight"], adapter.tensors()["head.bias"])
    cache = AudioCache(clips["train"], manifest.parent / "cache")
    backbone_key = fingerprint(backbone)
    made_from = {**asdict(config), "language": language, "backbone": backbone_key}
    claim(folder, {**made_from, "data": cache.key, "texts": text_key(cache.clips)})
    trunk = run_trunk(
        cache,
        encoder,
        adapter.lowest_layer,
        folder / "trunk.f16",
        variations=config.variations,
        augmentation=config.augmentation,
        seed=config.seed,
        normalised=normalised,
        bfloat16=bfloat16,
    )
    labels = [_labels(clip, vocab) for clip in cache.clips]

    optimiser = torch.optim.AdamW(adapter.parameters(), config.lr, betas=(0.9, 0.98), weight_decay=0.01)
    checkpoint = folder / "checkpoint.pt"
    step, best, best_cer = _restore(checkpoint, adapter, optimiser, device)
    progress = Progress(folder / "progress.jsonl", language, config.steps, step, every=100)
    if step == 0:  # with the backbone's own head for a start, it may be the best already
        best_cer = _cer(clips["dev"], adapter, vocab, encoder, normalised)
        progress.note(step, dev_cer=round(best_cer, 4))
    for rows in _order(trunk.frames, len(cache), step, config):
        if step >= config.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps, 0.1)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            logits = encoder.top(trunk.batch(rows, device), adapter)
        frames = [int(trunk.frames[row]) for row in rows]
        loss = ctc_loss(logits, frames, [labels[row % len(cache)] for row in rows], blank=vocab.blank)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
        progress.skipped(not bool(torch.isfinite(norm)))
        step += 1
        audio_s = sum(frames) * encoder.geometry.hop / SAMPLE_RATE
        progress.update(step, audio_s=audio_s, ctc=float(loss.detach()))
        if step % _EVERY == 0 or step == config.steps:
            cer = _cer(clips["dev"], adapter, vocab, encoder, normalised)
            progress.note(step, dev_cer=round(cer, 4))
            if cer < best_cer:
                best, best_cer = {k: v.detach().clone() for k, v in adapter.tensors().items()}, cer
            _save(checkpoint, step, adapter, optimiser, best, best_cer)

    published = {tensor_name: tensor.half() for tensor_name, tensor in best.items()}
    adapter.load(published)  # what is measured is what will be served, rounding included
    metrics = {split: _rates(clips[split], adapter, vocab, encoder, normalised) for split in ("dev", "test")}
    return AdapterStore(models / "adapters").publish(
        name or language,
        published,
        vocab,
        language=language,
        config=worn,
        hidden_size=encoder.hidden_size,
        layer_count=encoder.layer_count,
        fingerprint=backbone_key,
        default=name in (None, language),
        metrics=metrics,
        training={
            "config": asdict(config),
            "data": {"clips": len(cache), "seconds": round(sum(c.seconds for c in cache.clips), 1), "key": cache.key},
            "sources": sorted({clip.source for clip in cache.clips}),
            "parameters": parameter_count(worn, encoder.hidden_size, encoder.layer_count),
        },
        licence=" AND ".join(sorted({clip.licence for clip in cache.clips})),
    )


def _layers(encoder: Encoder, config: TrainConfig) -> tuple[int, ...]:
    adapted = encoder.layer_count // 2 if config.layers is None else config.layers
    if adapted > encoder.layer_count:
        raise DataError(f"{adapted} layers are to be adapted, and the backbone has {encoder.layer_count}")
    return top_layers(encoder.layer_count, adapted)


def _clips(manifest: Path, language: str, config: TrainConfig) -> dict[str, list[Clip]]:
    every = read_manifest(manifest)
    spoken = {clip.language for clip in every}
    clips = [clip for clip in every if clip.language == language]
    if not clips:
        raise DataError(f"{manifest}: no clips of {language!r}; there are {', '.join(sorted(spoken))}")
    found: dict[str, list[Clip]] = {"train": [], "dev": [], "test": []}
    for clip in clips:
        if not config.sources or clip.source in config.sources:
            found[clip.split].append(clip)
    for split, some in found.items():
        if not some:
            of = f" from {', '.join(config.sources)}" if config.sources else ""
            raise DataError(f"{manifest}: no {split} clips of {language!r}{of}; train, dev and test each need some")
    return found


def _labels(clip: Clip, vocab: Vocab) -> list[int]:
    try:
        return vocab.encode(clip.text)
    except DataError as error:
        raise DataError(f"{clip.path}: {error}") from error


def _order(frames: np.ndarray, clip_count: int, start: int, config: TrainConfig) -> Iterator[list[int]]:
    """Batches of rows of the trunk from step ``start`` on: each epoch draws one variation of every clip."""
    step = epoch = 0
    while True:
        rng = np.random.default_rng([config.seed, epoch])
        rows = np.arange(clip_count) + clip_count * rng.integers(0, config.variations, clip_count)
        lengths = [int(frames[row]) for row in rows]
        for batch in epoch_batches(lengths, int(config.batch_s * 50), seed=config.seed, epoch=epoch):
            if step >= start:
                yield [int(rows[i]) for i in batch]
            step += 1
        epoch += 1


def _cer(clips: list[Clip], adapter: Adapter, vocab: Vocab, encoder: Encoder, normalised: bool) -> float:
    return _rates(clips, adapter, vocab, encoder, normalised)["cer"]


def _rates(clips: list[Clip], adapter: Adapter, vocab: Vocab, encoder: Encoder, normalised: bool) -> dict[str, float]:
    """Through a bank of its own, as it will be served."""
    device = next(encoder.parameters()).device
    bank = Bank(encoder.hidden_size, encoder.layer_count, limit=1, device=device)
    seat = bank.seat(adapter.config, {name: tensor.detach() for name, tensor in adapter.tensors().items()})
    candidates = {clips[0].language: Candidate(seat, vocab)}
    rates = error_rates(hear(clips, candidates, encoder, bank, normalised=normalised))
    return {"cer": round(rates.cer, 4), "wer": round(rates.wer, 4)}


def _save(
    path: Path,
    step: int,
    adapter: Adapter,
    optimiser: torch.optim.Optimizer,
    best: dict[str, Tensor],
    best_cer: float,
) -> None:
    state = {
        "step": step,
        "adapter": adapter.state_dict(),
        "optimiser": optimiser.state_dict(),
        "best": best,
        "best_cer": best_cer,
    }
    save_checkpoint(path, state)


def _restore(
    path: Path, adapter: Adapter, optimiser: torch.optim.Optimizer, device: str
) -> tuple[int, dict[str, Tensor], float]:
    state = load_checkpoint(path, device)
    if state is None:
        return 0, {name: tensor.detach().clone() for name, tensor in adapter.tensors().items()}, float("inf")
    adapter.load_state_dict(state["adapter"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), state["best"], float(state["best_cer"])
