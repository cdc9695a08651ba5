"""A small backbone from the corpus' own audio: first how speech sounds, then which letters it makes (CTC).

The first stage is one of three routes (:mod:`adapters.training.objectives`): the unit of every frame, many of them
behind a mask, as in HuBERT; the contrastive objective of wav2vec 2.0; or the phones that a synthesizer says it spoke.
Stage ``ctc`` goes on from there in all languages together (MMS trains its backbone so before its adapters). What comes
out is a Hugging Face folder, frozen from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adapters.encoder import Encoder
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE
from adapters.training.backbone_folder import read_record, start_backbone, start_head, write_backbone
from adapters.training.bare_hearing import cer_by_language
from adapters.training.corpus.synthesis import sounds_of
from adapters.training.data import AudioCache, some_of_each, text_key
from adapters.training.feed import workers_for
from adapters.training.losses import span_mask, too_short
from adapters.training.manifest import read_manifest
from adapters.training.objectives import Batch, Objective
from adapters.training.objectives.contrastive import Contrastive
from adapters.training.objectives.ctc import Ctc
from adapters.training.objectives.phones import Phones
from adapters.training.objectives.units import Units, learn_units, mfcc
from adapters.training.precision import check_device, prefers_bfloat16, tune_cpu
from adapters.training.pretrain_batches import Prepared, StageBatches
from adapters.training.pretrain_config import PretrainConfig, Stage
from adapters.training.processes import join_processes, share_gradients, wait_for_processes
from adapters.training.progress import Progress
from adapters.training.run_folder import claim, load_checkpoint, noted, save_checkpoint
from adapters.training.schedule import schedule

_SAVE_EVERY, _SAVE_APART_S = 100, 60.0
"""Updates, some minutes on a slow machine, and on a fast one that long: a kill costs no more."""
_HEAR_EVERY = 500
_DEV_CLIPS = 12
_UNIT_CLIPS = 2_000


def pretrain(
    manifest: Path,
    folder: Path,
    out: Path,
    config: PretrainConfig | None = None,
    device: str = "cpu",
    also: Sequence[Path] = (),
) -> None:
    """Train a backbone on the train splits of ``manifest`` and, beside it, of ``also``, and write it to ``out``.

    ``folder`` keeps the checkpoints: the same call again goes on where the last one stopped. Of several processes that
    train together (:mod:`adapters.training.processes`) each takes batches of its own, and their gradients are averaged.
    Without steps of ``ctc`` the folder has no head.
    Raises :class:`~adapters.errors.DataError` for a manifest that cannot be used.
    """
    config = config or PretrainConfig()
    check_device(device)
    if device == "cpu":
        tune_cpu()
    run = _Run(manifest, folder, config, device, also)
    for stage in run.objectives:
        run.train(stage)
    if run.rank == 0:
        run.write(out)


class _Run:
    """A pretraining run in its folder: model, data, and where it stands."""

    def __init__(
        self, manifest: Path, folder: Path, config: PretrainConfig, device: str, also: Sequence[Path] = ()
    ) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.rank, self.world = join_processes(device)
        self.bfloat16 = prefers_bfloat16(device)
        clips = read_manifest(manifest)
        beside = [clip for path in also for clip in read_manifest(path)]
        train = [clip for clip in clips if clip.split == "train"]
        if not train:
            raise DataError(f"{manifest}: no train clips")
        self.recorded = len(train)
        train += [clip for clip in beside if clip.split == "train"]
        self.languages = sorted({clip.language for clip in train})
        heard = (clip for clip in [*clips, *beside] if clip.split == "dev" and clip.language in self.languages)
        dev = some_of_each(list(heard), _DEV_CLIPS)
        self.clips = AudioCache(train, manifest.parent / "cache")
        self.dev = AudioCache(dev, manifest.parent / "cache")
        self.trained = self._is_trained()
        self.started_from = read_record(Path(config.start)) if config.start is not None else None
        if self.trained:  # and may have written over its start, or be in the midst of it
            self.started_from = noted(folder).get("started_from")
        made_from = {**asdict(config), "data": self.clips.key, "texts": text_key(train), "processes": self.world}
        claim(folder, {**made_from, "started_from": self.started_from}, rank=self.rank)
        torch.manual_seed(config.seed)
        self.encoder = Encoder(config.shape.model()).to(device)
        geometry, size = self.encoder.geometry, config.shape.hidden_size
        weights = config.intermediate_weight, config.consistency_weight
        sounds = sounds_of(train) if config.halfway == "sounds" else None
        self.ctc = Ctc(self.clips, geometry, self.languages, size, *weights, sounds)
        if config.start is not None and not self.trained:
            start_backbone(Path(config.start), self.encoder)
            start_head(Path(config.start), self.ctc.vocab, self.ctc.letters.weight, self.ctc.letters.bias)
        self.objectives = {stage: self._objective(stage) for stage, one in config.stages.items() if one.steps}
        for objective in [self.ctc, *self.objectives.values()]:
            objective.head.to(device)
        self.average: list[Tensor] = []

    def _is_trained(self) -> bool:
        """Whether all steps are done, and only what came of them may have to be written."""
        stages = [(name, stage) for name, stage in self.config.stages.items() if stage.steps]
        state = load_checkpoint(self.folder / f"{stages[-1][0]}.pt", "cpu") if stages else None
        return state is not None and int(state["step"]) >= stages[-1][1].steps

    def _objective(self, stage: Stage) -> Objective:
        config, clips, count = self.config, self.clips.clips, len(self.clips)
        size = config.shape.hidden_size
        if stage == "units":
            return Units(self._centres(), count, size, config.unmasked_weight)
        if stage == "contrastive":
            return Contrastive(self.encoder.config, count)
        if stage == "phones":
            lengths = [self.clips.length(i) for i in range(count)]
            phones = Phones(clips, lengths, self.encoder.geometry, size)
            if not phones.clips:
                raise DataError("no train clip has phones; `tongues data synthesise` makes some that do, for --also")
            return phones
        return self.ctc

    def train(self, stage: Stage) -> None:
        """One stage to its end, from its checkpoint if there is one; the averaged weights stay."""
        config, objective = self.config.stages[stage], self.objectives[stage]
        modules = nn.ModuleList([self.encoder, objective.head])
        parameters = list(modules.parameters())
        convolutions = set(self.encoder.frontend.feature_extractor.parameters())
        groups = [
            {"params": [p for p in parameters if p not in convolutions], "share": 1.0},
            {"params": [p for p in parameters if p in convolutions], "share": config.conv_lr},
        ]
        optimiser = torch.optim.AdamW(groups, config.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        step = self._restore(stage, modules, optimiser)
        if step >= config.steps:
            return
        modules.train()
        progress = Progress(self.folder / "progress.jsonl", stage, config.steps, step)
        saved = time.monotonic()
        for prepared in self._batches(stage).after(step, workers_for(self.device)):
            for group in optimiser.param_groups:
                group["lr"] = group["share"] * config.lr * schedule(step, config.steps, config.warmup)
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
                batch = self._batch(stage, prepared, step)
                loss, figures = objective.loss(self.encoder, batch)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            share_gradients(parameters)
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if torch.isfinite(norm):
                optimiser.step()
            progress.skipped(not bool(torch.isfinite(norm)))
            if stage == "ctc":
                progress.too_short(too_short(batch.frames, batch.targets))
            step += 1
            decay = min(self.config.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - decay)
            if self.rank == 0:
                audio_s = self.world * sum(prepared.audio.lengths) / SAMPLE_RATE
                progress.update(step, audio_s=audio_s, grad=float(norm), **figures)
                if stage == "ctc" and len(self.dev) and (step % _HEAR_EVERY == 0 or step == config.steps):
                    with self._averaged(modules):
                        progress.note(step, dev_cer=self._dev_cer())
                if step % _SAVE_EVERY == 0 and step < config.steps and time.monotonic() >= saved + _SAVE_APART_S:
                    self._save(stage, step, modules, optimiser)
                    saved = time.monotonic()
            if step == config.steps:
                break
        for parameter, averaged in zip(parameters, self.average, strict=True):
            parameter.data.copy_(averaged)
        if self.rank == 0:
            self._save(stage, step, modules, optimiser)
        wait_for_processes()

    def write(self, out: Path) -> None:
        """What came of it."""
        record = {
            "config": asdict(self.config),
            "data": self.clips.key,
            "languages": self.languages,
            "processes": self.world,
            "started_from": self.started_from,
        }
        head = (self.ctc.letters, self.ctc.vocab) if "ctc" in self.objectives else None
        write_backbone(out, self.encoder, head, record)

    def _batches(self, stage: Stage) -> StageBatches:
        objective = self.objectives[stage]
        return StageBatches(stage, self.config, objective, self.clips, self.recorded, self.rank, self.world)

    def _dev_cer(self) -> dict[str, float]:
        return cer_by_language(
            self.encoder, self.ctc, self.dev, self.languages, device=self.device, bfloat16=self.bfloat16
        )

    def _batch(self, stage: Stage, prepared: Prepared, step: int) -> Batch:
        """With its mask. Everything random follows from the run's seed and the batch's number."""
        number = step * self.world + self.rank
        audio, geometry = prepared.audio.to(self.device), self.encoder.geometry
        frames = [geometry.frames(n) for n in audio.lengths]
        views = 2 if stage == "ctc" and self.config.consistency_weight else 1
        rng = np.random.default_rng([self.config.seed, number, 7])
        torch.manual_seed(self.config.seed * 1_000_003 + number)
        width = geometry.frames(audio.samples.shape[1])
        masked = span_mask(frames * views, width, self.config.stages[stage].mask_probability, rng).to(self.device)
        return Batch(audio, frames, prepared.clips, prepared.targets, masked, step)

    def _centres(self) -> np.ndarray:
        """Learnt by the first process, and read by all."""
        path = self.folder / "units.npy"
        if self.rank == 0 and not path.exists():
            temporary = path.with_suffix(".tmp.npy")
            some = np.random.default_rng(self.config.seed).permutation(len(self.clips))[:_UNIT_CLIPS]
            features = (mfcc(self.clips.samples(int(i))) for i in some)
            np.save(temporary, learn_units(features, self.config.units, self.config.seed))
            temporary.replace(path)
        if self.world > 1:
            wait_for_processes()
        centres: np.ndarray = np.load(path)
        return centres

    @contextmanager
    def _averaged(self, modules: nn.Module) -> Iterator[None]:
        """The averaged weights in the place of the trained ones, in eval mode."""
        trained = [parameter.data for parameter in modules.parameters()]
        for parameter, averaged in zip(modules.parameters(), self.average, strict=True):
            parameter.data = averaged
        modules.eval()
        yield
        modules.train()
        for parameter, data in zip(modules.parameters(), trained, strict=True):
            parameter.data = data

    def _save(self, stage: Stage, step: int, modules: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        state = {
            "step": step,
            "modules": modules.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": self.average,
        }
        save_checkpoint(self.folder / f"{stage}.pt", state)

    def _restore(self, stage: Stage, modules: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        state = load_checkpoint(self.folder / f"{stage}.pt", self.device)
        if state is None:
            self.average = [p.detach().clone() for p in modules.parameters()]
            return 0
        modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        return int(state["step"])
