"""One adapter for one language on a frozen backbone, or the baseline that it is held against, full fine-tuning.

The layers below those that train are the same for every step, so their output is computed once and kept
(:mod:`adapters.training.trunk`). What is saved is the version with the lowest CER on the dev split, the start among
them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.backbone import fingerprint, read_normalised
from adapters.bank import Bank
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE
from adapters.language import language_tag
from adapters.record import AdapterRecord, check_name
from adapters.store import AdapterStore
from adapters.training.augmentation import Augmentation
from adapters.training.backbone_folder import check_tuned, start_head, write_tuned
from adapters.training.clip_samples import check_clips
from adapters.training.clips import clips_for, warn_of_letters
from adapters.training.data import AudioCache, encoded, text_key, vocabulary, weights_beside
from adapters.training.evaluate import Candidate, Said, error_rates, hear
from adapters.training.licence import licence_of
from adapters.training.looks import Looks
from adapters.training.losses import ctc_loss, too_short
from adapters.training.manifest import Clip, write_json_lines
from adapters.training.precision import check_device, prefers_bfloat16, tune_cpu
from adapters.training.processes import PATIENCE
from adapters.training.progress import Progress
from adapters.training.publish_once import check_replaces, publish_once
from adapters.training.run_folder import claim, load_checkpoint, save_checkpoint
from adapters.training.schedule import schedule
from adapters.training.train_config import TrainConfig
from adapters.training.trainee import Trainee
from adapters.training.trunk import Computed, Start, TrunkCache, Variations, known_lengths

try:
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
except ModuleNotFoundError as error:
    raise DataError(f"training needs {error.name}: pip install 'tongues[train]'") from error

_EVERY = 100


def train(
    manifest: Path,
    models: Path,
    language: str,
    folder: Path,
    config: TrainConfig | None = None,
    *,
    name: str | None = None,
    out: Path | None = None,
    device: str = "cpu",
    keep_trunk: bool = True,
    also: Sequence[Path] = (),
) -> AdapterRecord:
    """Train for ``language`` on ``models``/backbone, and publish the adapter in ``models``/adapters as ``name``.

    Full fine-tuning makes a model folder of its own, ``out``, with the changed backbone and its head as an adapter.
    ``folder`` keeps checkpoints: the same call again goes on where the last one stopped; and test.jsonl, what was heard
    in the test clips. It becomes the default of its language where it is named for it. ``keep_trunk``: compute what is
    frozen once, beside the manifest, instead of at every step. ``also``: manifests whose train clips are learnt from
    beside, of other voices say; dev and test stay the corpus' own. Of several processes
    (:mod:`adapters.training.processes`, or accelerate's own launcher) each takes batches of its own.
    Raises :class:`~adapters.errors.DataError` for a manifest without usable clips of the language, a folder with
    another run in it, a device that is not there, or a name that an adapter of another language has,
    :class:`~adapters.errors.BackboneError` for a folder without a backbone.
    """
    config = config or TrainConfig()
    check_name(name or language)
    if language_tag(language) is None:
        raise DataError(f"{language!r} is not the tag of a language, such as 'de'")
    if (config.method == "full") != (out is not None):
        raise DataError("full fine-tuning, and it alone, needs a model folder to write: give it with --out")
    store = AdapterStore((out or models) / "adapters")
    check_replaces(store, name or language, language)
    check_device(device)
    if device == "cpu":
        tune_cpu()
    run = _Run(manifest, models, language, folder, config, out=out, device=device, keep_trunk=keep_trunk, also=also)
    run.learn()
    if run.first:
        run.publish(name or language, out or models)
    run.together.wait_for_everyone()
    return store.record(name or language)


class _Run:
    def __init__(
        self,
        manifest: Path,
        models: Path,
        language: str,
        folder: Path,
        config: TrainConfig,
        *,
        out: Path | None,
        device: str,
        keep_trunk: bool,
        also: Sequence[Path],
    ) -> None:
        self.language, self.folder, self.config = language, folder, config
        self.backbone = models / "backbone"
        self.fingerprint = fingerprint(self.backbone)
        self.normalised = read_normalised(self.backbone)
        self.bfloat16 = prefers_bfloat16(device)
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        group = InitProcessGroupKwargs(backend="gloo" if device == "cpu" else "nccl", timeout=PATIENCE)
        self.together = Accelerator(
            cpu=device == "cpu",
            mixed_precision="bf16" if self.bfloat16 else "no",
            kwargs_handlers=[group] if several else [],
        )
        self.device = device if device == "cpu" else str(self.together.device)
        self.first = self.together.is_main_process
        self.clips = clips_for(manifest, language, config, also)
        beside = self.clips.pop("beside")
        weights = weights_beside(self.clips["train"], beside, 0.0, config.also_share) if beside else None
        self.clips["train"] += beside
        self.vocab = vocabulary(self.clips["train"])
        if self.first:
            warn_of_letters(self.clips, self.vocab)
        self.trainee = Trainee(self.backbone, config, self.vocab.size, self.device)
        adapter = self.trainee.adapter
        start_head(self.backbone, self.vocab, adapter.tensors()["head.weight"], adapter.tensors()["head.bias"])
        kept = manifest.parent / "cache"
        self.cache, dev = AudioCache(self.clips["train"], kept), AudioCache(self.clips["dev"], kept)
        check_clips(self.clips["test"])
        self.labels = encoded(self.cache, self.vocab, self.trainee.encoder.geometry)
        made_from = {**asdict(config), "language": language, "backbone": self.fingerprint}
        made_from |= {"data": self.cache.key, "texts": text_key(self.cache.clips)}
        made_from |= {"dev": dev.key, "dev_texts": text_key(dev.clips), "processes": self.together.num_processes}
        self.made_from: dict[str, Any] = made_from
        if out is not None:
            check_tuned(out / "backbone", made_from)
        claim(folder, made_from, rank=self.together.process_index)
        varied = Variations(self.cache, config.variations, config.augmentation, config.seed, weights)
        plain = Variations(dev, 1, Augmentation(), 0)
        processes = self.together.num_processes
        every = islice(varied.batches(config.batch_s / processes), config.steps * processes)
        self.batches = list(every)[self.together.process_index :: processes]
        drawn = {row for rows in self.batches for row in rows}
        self.start = self._start(varied, sorted(drawn), kept if keep_trunk else None)
        heard = self._start(plain, range(len(plain)) if self.first else (), kept if keep_trunk else None)
        self.looks = Looks(dev, heard, self.vocab)
        self.best: dict[str, Tensor] = {}

    def _start(self, variations: Variations, rows: Sequence[int], kept: Path | None) -> Start:
        encoder, layer = self.trainee.encoder, self.trainee.layer
        if kept is None or layer < 0:
            return Computed(variations, encoder, max(layer, 0), self.normalised)
        cache = TrunkCache(
            kept, variations, encoder, self.fingerprint, normalised=self.normalised, bfloat16=self.bfloat16
        )
        return cache.below(layer, rows)

    def learn(self) -> None:
        """All steps that are left."""
        config, trainee, together = self.config, self.trainee, self.together
        optimiser: Any = torch.optim.AdamW(trainee.trained, config.lr, betas=(0.9, 0.98), weight_decay=0.01)
        step, best_cer, looks = self._restore(optimiser)
        model, optimiser = together.prepare(trainee, optimiser)
        progress = Progress(self.folder / "progress.jsonl", self.language, config.steps, step, every=100)
        if step == 0:  # with the backbone's own head for a start, it may be the best already
            with progress.paused():
                best_cer = self._cer()
            if self.first:
                progress.note(step, dev_cer=round(best_cer, 4))
        for rows in self.batches[step:]:
            if config.patience is not None and looks >= config.patience:
                break
            for group in optimiser.param_groups:
                group["lr"] = config.lr * schedule(step, config.steps, 0.1)
            torch.manual_seed(config.seed * 1_000_003 + step * together.num_processes + together.process_index)
            with together.autocast():
                trainee.train(trainee.layer < 0)  # layers that are frozen drop nothing
                below = self.start.batch(rows)
                trainee.train(True)
                logits = model(below)
            trainee.train(False)
            frames = list(known_lengths(below))
            labels = [self.labels[row % len(self.cache)] for row in rows]
            loss = ctc_loss(logits, frames, labels, blank=self.vocab.blank)
            optimiser.zero_grad()
            together.backward(loss)
            norm = together.clip_grad_norm_(trainee.trained, 1.0)
            finite = norm is not None and bool(torch.isfinite(norm))
            if finite:
                optimiser.step()
            step += 1
            if self.first:
                progress.skipped(not finite)
                progress.too_short(too_short(frames, labels))
                audio_s = together.num_processes * sum(frames) * trainee.encoder.geometry.hop / SAMPLE_RATE
                progress.update(step, audio_s=audio_s, ctc=float(loss.detach()))
            if step % _EVERY == 0 or step == config.steps:
                with progress.paused():
                    cer = self._cer()
                looks += 1
                if cer < best_cer:
                    self.best, best_cer, looks = _copy(trainee.tensors()), cer, 0
                if self.first:
                    progress.note(step, dev_cer=round(cer, 4))
                    self._save(step, optimiser, best_cer, looks)
        together.wait_for_everyone()

    def publish(self, name: str, models: Path) -> None:
        """What was best, rounded to half precision, measured and published in ``models``."""
        trainee, config = self.trainee, self.config
        adapter, encoder = trainee.adapter, trainee.encoder
        trainee.load({key: tensor.half() for key, tensor in self.best.items()})  # what is measured is what is served
        metrics = {"dev": error_rates(self._hear(self.clips["dev"])).metrics()}
        said = self._hear(self.clips["test"])
        metrics["test"] = error_rates(said).metrics()
        lines = ({"text": one.clip.text, "heard": one.heard, "seconds": one.clip.seconds} for one in said)
        write_json_lines(self.folder / "test.jsonl", lines)
        known_by = self.fingerprint
        if config.method == "full":
            write_tuned(models / "backbone", self.backbone, encoder, self.made_from)
            known_by = fingerprint(models / "backbone")
        training = {
            "config": asdict(config),
            "data": {
                "clips": len(self.cache),
                "seconds": round(sum(clip.seconds for clip in self.cache.clips), 1),
                "key": self.cache.key,
            },
            "sources": sorted({clip.source for clip in self.cache.clips}),
            **trainee.counts,
        }
        publish_once(
            AdapterStore(models / "adapters"),
            name,
            {key: tensor.detach().half().cpu() for key, tensor in adapter.tensors().items()},
            self.vocab,
            language=self.language,
            config=adapter.config,
            size=encoder.size,
            fingerprint=known_by,
            default=name == self.language,
            metrics=metrics,
            training=training,
            licence=licence_of(clip.licence for clip in self.cache.clips),
            synthetic=all(clip.synthetic for clip in self.cache.clips),
        )

    def _cer(self) -> float:
        """The first process', for all: they go on or end together."""
        found = [self.looks.rates(self.trainee).cer if self.first else 0.0]
        return float(broadcast_object_list(found)[0])

    def _hear(self, clips: list[Clip]) -> list[Said]:
        """Through a bank of its own, as it will be served."""
        encoder, adapter = self.trainee.encoder, self.trainee.adapter
        bank = Bank(encoder.size, limit=1, device=torch.device(self.device))
        seat = bank.seat(adapter.config, {name: tensor.detach() for name, tensor in adapter.tensors().items()})
        candidates = {clips[0].language: Candidate(seat, self.vocab)}
        return hear(clips, candidates, encoder, bank, normalised=self.normalised)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _save(self, step: int, optimiser: torch.optim.Optimizer, best_cer: float, looks: int) -> None:
        state = {
            "step": step,
            "trained": _copy(self.trainee.tensors()),
            "optimiser": optimiser.state_dict(),
            "best": self.best,
            "best_cer": best_cer,
            "looks": looks,
        }
        save_checkpoint(self._checkpoint, state)

    def _restore(self, optimiser: torch.optim.Optimizer) -> tuple[int, float, int]:
        """The step to go on from, the lowest CER until then, and the looks at the dev split since."""
        state = load_checkpoint(self._checkpoint, self.device)
        if state is None:
            self.best = _copy(self.trainee.tensors())
            return 0, float("inf"), 0
        self.trainee.load(state["trained"])
        optimiser.load_state_dict(state["optimiser"])
        self.best = state["best"]
        return int(state["step"]), float(state["best_cer"]), int(state["looks"])


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
