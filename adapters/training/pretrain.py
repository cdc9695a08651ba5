"""A small backbone from the corpus' own audio: first what is spoken where (masked units), then letters (CTC).

Stage ``units`` is HuBERT's first iteration: predict the k-means unit of every frame, most of them behind a mask. Stage
``ctc`` goes on from there in all languages together, with one head over the union of their characters of which each
clip sees only its own language's (MMS trains its backbone so before its adapters). What comes out is a Hugging Face
folder, frozen from then on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2Model

from adapters.encoder import Encoder
from adapters.frontend import SAMPLE_RATE, Geometry, PaddedAudio, pad
from adapters.training.data import AudioCache, Augmentation, epoch_batches
from adapters.training.manifest import read_manifest
from adapters.training.progress import Progress
from adapters.training.units import assign_units, learn_units, mfcc

Stage = Literal["units", "ctc"]
BLANK, DELIMITER = "<pad>", "|"


@dataclass(frozen=True)
class BackboneShape:
    """Sizes of the backbone to train; the defaults make 7.1 million parameters."""

    hidden_size: int = 256
    layers: int = 8
    heads: int = 4
    feed_forward: int = 1024
    conv_channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 256)
    position_kernel: int = 64

    def config(self) -> Wav2Vec2Config:
        """transformers' configuration: pre-norm, group norm in front (1.7 times faster to train than layer norm)."""
        return Wav2Vec2Config(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.feed_forward,
            conv_dim=self.conv_channels,
            num_conv_pos_embeddings=self.position_kernel,
            do_stable_layer_norm=True,
            feat_extract_norm="group",
            hidden_dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            final_dropout=0.0,
            layerdrop=0.0,
            mask_time_prob=0.08,
            mask_time_length=10,
        )


@dataclass(frozen=True)
class StageConfig:
    """One stage: how many updates of how many seconds a process, how fast, and how the audio is varied."""

    steps: int
    batch_s: float
    lr: float
    mask_probability: float
    augmentation: Augmentation
    warmup: float = 0.05


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides what comes out; saved with it."""

    shape: BackboneShape = BackboneShape()
    units: int = 200
    unmasked_weight: float = 0.5
    intermediate_weight: float = 0.3
    ema: float = 0.999
    language_balance: float = 0.5
    seed: int = 0
    bfloat16: bool = True
    stages: dict[Stage, StageConfig] = field(
        default_factory=lambda: {
            "units": StageConfig(2_000, 32.0, 1e-3, 0.08, Augmentation(speed=0.15, filter=0.3)),
            "ctc": StageConfig(
                9_000, 32.0, 1e-3, 0.02, Augmentation(speed=0.15, telephone=0.1, noise=0.15, filter=0.3)
            ),
        }
    )


@dataclass(frozen=True)
class _Batch:
    audio: PaddedAudio
    indices: list[int]
    units: list[np.ndarray]


class _Run:
    """A pretraining run in its folder: model, data, and where it stands. ``pretrain`` is the way in."""

    def __init__(self, manifest: Path, folder: Path, config: PretrainConfig, device: str) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        folder.mkdir(parents=True, exist_ok=True)
        clips = read_manifest(manifest)
        self.train = AudioCache([c for c in clips if c.split == "train"], manifest.parent / "cache")
        by_language: dict[str, list[Any]] = {}
        for clip in clips:
            if clip.split == "dev" and clip.seconds >= 1:
                by_language.setdefault(clip.language, []).append(clip)
        self.dev = AudioCache([c for group in by_language.values() for c in group[:12]], manifest.parent / "cache")
        self.languages = sorted({c.language for c in self.train.clips})
        characters = sorted({ch for c in self.train.clips for ch in c.text} - {" "})
        self.tokens = [BLANK, DELIMITER, *characters]
        self.ids = {token: i for i, token in enumerate(self.tokens)} | {" ": 1}
        self.allowed = torch.zeros(len(self.languages), len(self.tokens), dtype=torch.bool)
        self.allowed[:, :2] = True
        for clip in self.train.clips:
            for ch in set(clip.text):
                self.allowed[self.languages.index(clip.language), self.ids[ch]] = True
        torch.manual_seed(config.seed)
        self.encoder = Encoder(Wav2Vec2Model(config.shape.config())).to(device)
        self.unit_head = nn.Linear(config.shape.hidden_size, config.units).to(device)
        self.ctc_head = nn.Linear(config.shape.hidden_size, len(self.tokens)).to(device)
        self.modules = nn.ModuleList([self.encoder, self.unit_head, self.ctc_head])
        self.average: list[Tensor] = []
        self.centres = self._centres()

    def _centres(self) -> np.ndarray:
        path = self.folder / "units.npy"
        if not path.exists():
            rng = np.random.default_rng(self.config.seed)
            some = rng.permutation(len(self.train))[:2_000]
            np.save(path, learn_units((mfcc(self.train.samples(int(i))) for i in some), self.config.units, 0))
        centres: np.ndarray = np.load(path)
        return centres

    # --- batches ---

    def batches(self, stage: Stage, start: int) -> Iterator[_Batch]:
        """Batches ``start``, ``start + 1``, ... of a stage, prepared one ahead in a thread."""
        config = self.config.stages[stage]
        lengths = [self.train.length(i) for i in range(len(self.train))]
        seconds: dict[str, float] = {}
        for clip in self.train.clips:
            seconds[clip.language] = seconds.get(clip.language, 0.0) + clip.seconds
        most = max(seconds.values())
        weights = [
            min((most / seconds[c.language]) ** self.config.language_balance, 4.0) if stage == "ctc" else 1.0
            for c in self.train.clips
        ]

        def order() -> Iterator[tuple[int, list[int]]]:
            step, epoch = 0, 0
            while True:
                drawn = epoch_batches(
                    lengths,
                    int(config.batch_s * SAMPLE_RATE),
                    seed=self.config.seed,
                    epoch=epoch if stage == "units" else 10_000 + epoch,
                    weights=weights,
                )
                for batch in drawn:
                    if step >= start * self.world and step % self.world == self.rank:
                        yield step, batch
                    step += 1
                epoch += 1

        def prepare(step: int, indices: list[int]) -> _Batch:
            rng = np.random.default_rng([self.config.seed, step, stage == "ctc"])
            waves = [config.augmentation(self.train.samples(i), rng) for i in indices]
            units = [assign_units(mfcc(w), self.centres) for w in waves] if stage == "units" else []
            return _Batch(pad(waves), indices, units)

        drawn = order()
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(prepare, *next(drawn)) for _ in range(2)]
            while True:
                yield ahead.pop(0).result()
                ahead.append(pool.submit(prepare, *next(drawn)))

    def mask(self, lengths: Sequence[int], width: int, probability: float, rng: np.random.Generator) -> Tensor:
        """(B, T) bool: spans of 10 frames, each frame a start with ``probability``."""
        starts = rng.random((len(lengths), width)) < probability
        masked = np.zeros_like(starts)
        for shift in range(10):
            masked[:, shift:] |= starts[:, : width - shift]
        masked &= np.arange(width)[None, :] < np.asarray(lengths)[:, None]
        return torch.from_numpy(masked).to(self.device)

    # --- losses ---

    def loss(self, stage: Stage, batch: _Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        config = self.config.stages[stage]
        audio = batch.audio.to(self.device)
        geometry: Geometry = self.encoder.geometry
        frames = [geometry.frames(n) for n in audio.lengths]
        rng = np.random.default_rng([self.config.seed, step, 7])
        masked = self.mask(frames, max(geometry.frames(audio.samples.shape[1]), 1), config.mask_probability, rng)
        middle = self.encoder.layer_count // 2
        bare = self.encoder.bare
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.bfloat16):
            half = self.encoder.trunk(audio, middle, masked=masked)
            x = self.encoder.hidden(half, bare)
            if stage == "units":
                return self._unit_loss(self.unit_head(x).float(), batch, masked)
            logits = self.ctc_head(x).float()
            lower = self.ctc_head(self.encoder.model.encoder.layer_norm(half.hidden)).float()
        loss = self._ctc_loss(logits, batch, frames)
        total = loss + self.config.intermediate_weight * self._ctc_loss(lower, batch, frames)
        return total, {"ctc": float(loss.detach())}

    def _unit_loss(self, logits: Tensor, batch: _Batch, masked: Tensor) -> tuple[Tensor, dict[str, float]]:
        target = torch.full(logits.shape[:2], -100)
        for row, units in enumerate(batch.units):
            width = min(len(units), logits.shape[1])
            target[row, :width] = torch.from_numpy(units[:width].astype(np.int64))
        target = target.to(self.device)
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        valid = target >= 0
        hidden, seen = each[masked & valid].mean(), each[~masked & valid].mean()
        return hidden + self.config.unmasked_weight * seen, {
            "masked": float(hidden.detach()),
            "seen": float(seen.detach()),
        }

    def _ctc_loss(self, logits: Tensor, batch: _Batch, frames: list[int]) -> Tensor:
        rows = [self.languages.index(self.train.clips[i].language) for i in batch.indices]
        allowed = self.allowed[rows].to(self.device)[:, None, :]
        logits = logits.masked_fill(~allowed, -1e4)
        targets = [[self.ids[ch] for ch in self.train.clips[i].text] for i in batch.indices]
        loss = F.ctc_loss(
            F.log_softmax(logits, dim=2).transpose(0, 1),
            torch.tensor([t for row in targets for t in row]).to(self.device),
            torch.tensor(frames),
            torch.tensor([len(row) for row in targets]),
            reduction="sum",
            zero_infinity=True,
        )
        return loss / sum(map(len, targets))

    # --- the loop ---

    def run(self, stage: Stage) -> None:
        """Train one stage to its end, from its checkpoint if there is one."""
        config = self.config.stages[stage]
        heads = self.unit_head if stage == "units" else self.ctc_head
        parameters = [*self.encoder.parameters(), *heads.parameters()]
        optimiser = torch.optim.AdamW(parameters, config.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        step = self._restore(stage, optimiser, parameters)
        if step >= config.steps:
            return
        self.modules.train()
        progress = Progress(self.folder / "progress.jsonl", stage, config.steps, step)
        for batch in self.batches(stage, step):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * schedule(step, config.steps, config.warmup)
            torch.manual_seed(self.config.seed * 1_000_003 + step)
            loss, figures = self.loss(stage, batch, step * self.world + self.rank)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            self.share_gradients(parameters)
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if torch.isfinite(norm):
                optimiser.step()
            step += 1
            decay = min(self.config.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - decay)
            if self.rank == 0:
                audio_s = self.world * sum(batch.audio.lengths) / SAMPLE_RATE
                progress.update(step, audio_s=audio_s, grad=float(norm), **figures)
            if self.rank == 0 and (step % 500 == 0 or step == config.steps):
                if stage == "ctc":
                    with self._averaged(parameters):
                        progress.note(step, dev_cer=self.dev_cer())
                self._save(stage, step, optimiser)
            if step >= config.steps:
                break
        for parameter, averaged in zip(parameters, self.average, strict=True):
            parameter.data.copy_(averaged)
        if self.rank == 0:
            self._save(stage, step, optimiser)
        if self.world > 1:
            dist.barrier()

    def share_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average the gradients over the processes of the run; nothing to do for one."""
        if self.world == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _save(self, stage: Stage, step: int, optimiser: torch.optim.Optimizer) -> None:
        state = {
            "stage": stage,
            "step": step,
            "modules": self.modules.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": self.average,
        }
        path = self.folder / f"{stage}.pt"
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def _restore(self, stage: Stage, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> int:
        path = self.folder / f"{stage}.pt"
        if not path.exists():
            self.average = [p.detach().clone() for p in parameters]
            return 0
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        return int(state["step"])

    def _averaged(self, parameters: list[nn.Parameter]) -> Any:
        run = self

        class Swap:
            def __enter__(self) -> None:
                self.swap()
                run.modules.eval()

            def __exit__(self, *_: object) -> None:
                self.swap()
                run.modules.train()

            def swap(self) -> None:
                for parameter, averaged in zip(parameters, run.average, strict=True):
                    kept = parameter.data.clone()
                    parameter.data.copy_(averaged)
                    averaged.copy_(kept)

        return Swap()

    @torch.inference_mode()
    def dev_cer(self) -> dict[str, float]:
        """Greedy CER a language over a few dev clips each, with the averaged weights."""
        import jiwer

        said: dict[str, tuple[list[str], list[str]]] = {}
        for index, clip in enumerate(self.dev.clips):
            audio = pad([self.dev.samples(index)]).to(self.device)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.config.bfloat16):
                x = self.encoder.hidden(self.encoder.trunk(audio, 0), self.encoder.bare)
                logits = self.ctc_head(x)[0].float().cpu()
            logits[:, ~self.allowed[self.languages.index(clip.language)]] = -1e4
            best = torch.unique_consecutive(logits.argmax(dim=1)).tolist()
            text = "".join(" " if i == 1 else self.tokens[i] for i in best if i)
            truth, heard = said.setdefault(clip.language, ([], []))
            truth.append(clip.text)
            heard.append(" ".join(text.split()))
        each = {language: round(float(jiwer.cer(*pair)), 4) for language, pair in said.items()}
        return {"mean": round(sum(each.values()) / len(each), 4), **each}

    def export(self, out: Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the backbone in Hugging Face layout, with the union head beside it as a start for new heads."""
        out.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.to(dtype) for name, tensor in self.encoder.model.state_dict().items()}
        self.encoder.model.save_pretrained(out, state_dict=state)
        head = {"weight": self.ctc_head.weight.detach().to(dtype), "bias": self.ctc_head.bias.detach().to(dtype)}
        save_file(head, out / "head.safetensors")
        tokens = {token: i for i, token in enumerate(self.tokens)}
        (out / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        (out / "preprocessor_config.json").write_text(
            json.dumps(
                {
                    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                    "feature_size": 1,
                    "sampling_rate": SAMPLE_RATE,
                    "padding_value": 0.0,
                    "do_normalize": True,
                    "return_attention_mask": True,
                },
                indent=2,
            )
            + "\n"
        )
        record = {"config": asdict(self.config), "data": self.train.key, "languages": self.languages}
        (out / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")


def world_size() -> int:
    """How many processes train together, under torchrun or accelerate launch; 1 otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def schedule(step: int, steps: int, warmup: float) -> float:
    """A factor on the learning rate: up in a line over the first ``warmup`` share, then down a cosine to 2 %."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def pretrain(
    manifest: Path, folder: Path, out: Path, config: PretrainConfig | None = None, device: str = "cpu"
) -> None:
    """Train a backbone on the manifest's train split and write it to ``out``.

    ``folder`` keeps the checkpoints: the same call again goes on where the last one stopped.
    Raises :class:`~adapters.errors.DataError` for a manifest that cannot be used.
    """
    config = config or PretrainConfig()
    if device == "cpu":
        torch.set_flush_denormal(True)  # optimiser states decay into denormals, ten times slower
    if "RANK" in os.environ and not dist.is_initialized():  # under torchrun or accelerate launch
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    run = _Run(manifest, folder, config, device)
    for stage in config.stages:
        run.run(stage)
    if run.rank == 0:
        run.export(out)
