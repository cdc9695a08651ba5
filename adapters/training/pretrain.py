"""A small backbone from the corpus' own audio: first what is spoken where (masked units), then letters (CTC).

Stage ``units`` is HuBERT's first iteration: predict the k-means unit of every frame, many of them behind a mask. Stage
``ctc`` goes on from there in all languages together, with one head over the union of their characters of which each
clip sees only its own language's (MMS trains its backbone so before its adapters). What comes out is a Hugging Face
folder, frozen from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Model

from adapters.ctc import BestPath, best_tokens, transcript
from adapters.encoder import Encoder
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE, PaddedAudio, few_widths, pad
from adapters.training.backbone_folder import read_record, start_backbone, start_head, write_backbone
from adapters.training.data import AudioCache, Augmentation, epoch_batches, language_weights, some_of_each, text_key
from adapters.training.losses import ctc_loss, span_mask, unit_losses
from adapters.training.manifest import read_manifest
from adapters.training.precision import prefers_bfloat16, tune_cpu
from adapters.training.pretrain_config import PretrainConfig, Stage, StageConfig
from adapters.training.processes import join_processes, share_gradients, wait_for_processes
from adapters.training.progress import Progress
from adapters.training.run_folder import claim, load_checkpoint, save_checkpoint
from adapters.training.schedule import schedule
from adapters.training.units import assign_units, learn_units, mfcc
from adapters.vocab import Vocab

_SAVE_EVERY = 500
_DEV_CLIPS = 12
_UNIT_CLIPS = 2_000
_NO_UNITS = StageConfig(0, 0, 0, 0, Augmentation())


def pretrain(
    manifest: Path, folder: Path, out: Path, config: PretrainConfig | None = None, device: str = "cpu"
) -> None:
    """Train a backbone on the manifest's train split and write it to ``out``.

    ``folder`` keeps the checkpoints: the same call again goes on where the last one stopped. Of several processes that
    train together (:mod:`adapters.training.processes`) each takes batches of its own, and their gradients are averaged.
    Raises :class:`~adapters.errors.DataError` for a manifest that cannot be used.
    """
    config = config or PretrainConfig()
    if device == "cpu":
        tune_cpu()
    run = _Run(manifest, folder, config, device)
    for stage in config.stages:
        run.train(stage)
    if run.rank == 0:
        record = {"config": asdict(config), "data": run.clips.key, "languages": run.languages, "processes": run.world}
        write_backbone(out, run.encoder, run.ctc_head, run.vocab, {**record, "started_from": run.started_from})


@dataclass(frozen=True)
class _Batch:
    audio: PaddedAudio
    clips: list[int]
    units: list[np.ndarray]


class _Run:
    """A pretraining run in its folder: model, data, and where it stands."""

    def __init__(self, manifest: Path, folder: Path, config: PretrainConfig, device: str) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.rank, self.world = join_processes(device)
        self.bfloat16 = prefers_bfloat16(device)
        clips = read_manifest(manifest)
        train = [clip for clip in clips if clip.split == "train"]
        if not train:
            raise DataError(f"{manifest}: no train clips")
        self.languages = sorted({clip.language for clip in train})
        dev = some_of_each(
            [clip for clip in clips if clip.split == "dev" and clip.language in self.languages], _DEV_CLIPS
        )
        self.clips = AudioCache(train, manifest.parent / "cache")
        self.dev = AudioCache(dev, manifest.parent / "cache")
        self.started_from = read_record(Path(config.start)) if config.start is not None else None
        made_from = {**asdict(config), "data": self.clips.key, "texts": text_key(train), "processes": self.world}
        claim(folder, {**made_from, "started_from": self.started_from}, rank=self.rank)
        self.vocab = Vocab.from_texts(clip.text for clip in self.clips.clips)
        self.labels = [self.vocab.encode(clip.text) for clip in self.clips.clips]
        self.allowed = torch.zeros(len(self.languages), self.vocab.size, dtype=torch.bool)
        self.allowed[:, [self.vocab.blank, self.vocab.delimiter]] = True
        for clip, labels in zip(self.clips.clips, self.labels, strict=True):
            self.allowed[self.languages.index(clip.language), labels] = True
        torch.manual_seed(config.seed)
        self.encoder = Encoder(Wav2Vec2Model(config.shape.config())).to(device)
        self.unit_head = nn.Linear(config.shape.hidden_size, config.units).to(device)
        self.ctc_head = nn.Linear(config.shape.hidden_size, self.vocab.size).to(device)
        if config.start is not None:
            start_backbone(Path(config.start), self.encoder)
            start_head(Path(config.start), self.vocab, self.ctc_head.weight, self.ctc_head.bias)
        self.modules = nn.ModuleList([self.encoder, self.unit_head, self.ctc_head])
        self.average: list[Tensor] = []
        self.centres = self._centres() if config.stages.get("units", _NO_UNITS).steps else np.zeros((0, 0))

    def train(self, stage: Stage) -> None:
        """One stage to its end, from its checkpoint if there is one; the averaged weights stay."""
        config = self.config.stages[stage]
        head = self.unit_head if stage == "units" else self.ctc_head
        parameters = [*self.encoder.parameters(), *head.parameters()]
        optimiser = torch.optim.AdamW(parameters, config.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        step = self._restore(stage, optimiser, parameters)
        if step >= config.steps:
            return
        self.modules.train()
        progress = Progress(self.folder / "progress.jsonl", stage, config.steps, step)
        for batch in self._batches(stage, step):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * schedule(step, config.steps, config.warmup)
            loss, figures = self._loss(stage, batch, step * self.world + self.rank)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            share_gradients(parameters)
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if torch.isfinite(norm):
                optimiser.step()
            progress.skipped(not bool(torch.isfinite(norm)))
            step += 1
            decay = min(self.config.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - decay)
            if self.rank == 0:
                audio_s = self.world * sum(batch.audio.lengths) / SAMPLE_RATE
                progress.update(step, audio_s=audio_s, grad=float(norm), **figures)
                if step % _SAVE_EVERY == 0 or step == config.steps:
                    if stage == "ctc" and len(self.dev):
                        with self._averaged(parameters):
                            progress.note(step, dev_cer=self._dev_cer())
                    if step < config.steps:
                        self._save(stage, step, optimiser)
            if step == config.steps:
                break
        for parameter, averaged in zip(parameters, self.average, strict=True):
            parameter.data.copy_(averaged)
        if self.rank == 0:
            self._save(stage, step, optimiser)
        wait_for_processes()

    def _loss(self, stage: Stage, batch: _Batch, number: int) -> tuple[Tensor, dict[str, float]]:
        config, encoder = self.config.stages[stage], self.encoder
        audio = batch.audio.to(self.device)
        frames = [encoder.geometry.frames(n) for n in audio.lengths]
        rng = np.random.default_rng([self.config.seed, number, 7])
        torch.manual_seed(self.config.seed * 1_000_003 + number)
        width = encoder.geometry.frames(audio.samples.shape[1])
        masked = span_mask(frames, width, config.mask_probability, rng).to(self.device)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
            half = encoder.trunk(audio, encoder.layer_count // 2, masked=masked)
            x = encoder.hidden(half, encoder.bare)
            if stage == "units":
                hidden, seen = unit_losses(self.unit_head(x), batch.units, masked)
                figures = {"masked": float(hidden.detach()), "seen": float(seen.detach())}
                return hidden + self.config.unmasked_weight * seen, figures
            logits = self.ctc_head(x)
            lower = self.ctc_head(encoder.model.encoder.layer_norm(half.hidden))
        rows = [self.languages.index(self.clips.clips[i].language) for i in batch.clips]
        allowed = self.allowed[rows].to(self.device)
        labels = [self.labels[i] for i in batch.clips]
        loss = ctc_loss(logits, frames, labels, blank=self.vocab.blank, allowed=allowed)
        below = ctc_loss(lower, frames, labels, blank=self.vocab.blank, allowed=allowed)
        return loss + self.config.intermediate_weight * below, {"ctc": float(loss.detach())}

    def _batches(self, stage: Stage, start: int) -> Iterator[_Batch]:
        """This process's batches from step ``start`` on, prepared ahead in a thread."""
        config = self.config.stages[stage]

        def prepare(number: int, clips: list[int]) -> _Batch:
            rng = np.random.default_rng([self.config.seed, number, stage == "ctc"])
            waves = [config.augmentation(self.clips.samples(i), rng) for i in clips]
            units = [assign_units(mfcc(wave), self.centres) for wave in waves] if stage == "units" else []
            return _Batch(pad(waves, width=few_widths), clips, units)

        order = self._order(stage, start)
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(prepare, *next(order)) for _ in range(2)]
            while True:
                yield ahead.pop(0).result()
                ahead.append(pool.submit(prepare, *next(order)))

    def _order(self, stage: Stage, start: int) -> Iterator[tuple[int, list[int]]]:
        config = self.config.stages[stage]
        lengths = [self.clips.length(i) for i in range(len(self.clips))]
        weights = language_weights(self.clips.clips, self.config.language_balance) if stage == "ctc" else None
        number, epoch = 0, (10_000 if stage == "ctc" else 0)
        while True:
            longest = int(config.batch_s / self.world * SAMPLE_RATE)
            for batch in epoch_batches(lengths, longest, seed=self.config.seed, epoch=epoch, weights=weights):
                if number >= start * self.world and number % self.world == self.rank:
                    yield number, batch
                number += 1
            epoch += 1

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

    @torch.inference_mode()
    def _dev_cer(self) -> dict[str, float]:
        """Greedy CER a language over a few dev clips each."""
        said: dict[str, tuple[list[str], list[str]]] = {}
        for index, clip in enumerate(self.dev.clips):
            audio = pad([self.dev.samples(index)]).to(self.device)
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
                x = self.encoder.hidden(self.encoder.trunk(audio, 0), self.encoder.bare)
                logits = self.ctc_head(x).float().cpu()
            logits[..., ~self.allowed[self.languages.index(clip.language)]] = -torch.inf
            ids, probabilities = best_tokens(logits)
            path = BestPath(ids[0].numpy(), probabilities[0].numpy())
            truth, heard = said.setdefault(clip.language, ([], []))
            truth.append(clip.text)
            heard.append(transcript(path, self.vocab, frame_s=0.02, duration_s=clip.seconds).text)
        each = {language: round(float(jiwer.cer(*pair)), 4) for language, pair in said.items()}
        return {"mean": round(sum(each.values()) / len(each), 4), **each}

    @contextmanager
    def _averaged(self, parameters: list[nn.Parameter]) -> Iterator[None]:
        """The averaged weights in the place of the trained ones, in eval mode."""
        trained = [parameter.data for parameter in parameters]
        for parameter, averaged in zip(parameters, self.average, strict=True):
            parameter.data = averaged
        self.modules.eval()
        yield
        self.modules.train()
        for parameter, data in zip(parameters, trained, strict=True):
            parameter.data = data

    def _save(self, stage: Stage, step: int, optimiser: torch.optim.Optimizer) -> None:
        state = {
            "step": step,
            "modules": self.modules.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": self.average,
        }
        save_checkpoint(self.folder / f"{stage}.pt", state)

    def _restore(self, stage: Stage, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> int:
        state = load_checkpoint(self.folder / f"{stage}.pt", self.device)
        if state is None:
            self.average = [p.detach().clone() for p in parameters]
            return 0
        self.modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        return int(state["step"])
