"""`tongues pretrain`: a small backbone from the corpus' own audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def pretrain_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    out: Annotated[Path, typer.Option(help="Model folder; the backbone goes to OUT/backbone.")],
    also: Annotated[
        list[Path] | None, typer.Option(help="A further manifest, of synthetic speech say; may be given several times.")
    ] = None,
    also_share: Annotated[float, typer.Option(min=0, max=0.95, help="Of the seconds, those from --also.")] = 0.4,
    run: Annotated[Path | None, typer.Option(help="Folder for checkpoints; runs/NAME, if left out.")] = None,
    architecture: Annotated[Literal["wav2vec2", "hubert"], typer.Option(help="Of the backbone.")] = "wav2vec2",
    route: Annotated[
        Literal["units", "contrastive", "phones"],
        typer.Option(help="What comes before CTC: units (HuBERT), contrastive (wav2vec 2.0), or phones (with --also)."),
    ] = "units",
    route_steps: Annotated[int, typer.Option(min=0, help="Updates of the route.")] = 1_300,
    ctc_steps: Annotated[
        int, typer.Option(min=0, help="Updates of multilingual CTC; 0 for the paper's setting, without letters.")
    ] = 5_800,
    batch_s: Annotated[float, typer.Option(help="Seconds of audio an update, over all processes.")] = 24.0,
    lr: Annotated[float, typer.Option(min=0, max=1, help="Highest learning rate of both stages.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Decides everything random.")] = 0,
    start: Annotated[Path | None, typer.Option(help="Backbone folder to go on from, instead of from nothing.")] = None,
    balance: Annotated[
        float,
        typer.Option(help="0 draws clips as they come, 1 each language equally long, none over 4 times as often."),
    ] = 0.5,
    dropout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Of sublayers, against learning clips by heart.")
    ] = 0.0,
    masking: Annotated[
        float | None, typer.Option(min=0, max=0.2, help="Frames that begin a masked span of 10, in the CTC stage.")
    ] = None,
    variation: Annotated[
        Literal["usual", "strong"],
        typer.Option(help="Of the audio; strong where it is little, of few voices."),
    ] = "usual",
    consistency: Annotated[
        float, typer.Option(min=0, help="Weight of saying the same behind two masks, in the CTC stage; 0.2 is usual.")
    ] = 0.0,
    halfway: Annotated[
        Literal["letters", "sounds"],
        typer.Option(help="What CTC spells half way up: letters, or how eSpeak NG would say them."),
    ] = "letters",
    processes: Annotated[int, typer.Option(min=1, help="Processes that share an update, and the cores.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train a backbone on the train split of all languages; started again, it goes on where it stopped.

    On a CPU a process for each core is faster than one of many threads.
    """
    from dataclasses import replace

    from adapters.training.augmentation import STRONG
    from adapters.training.pretrain import pretrain
    from adapters.training.pretrain_config import STAGE, PretrainConfig, Stage
    from adapters.training.processes import run_processes
    from app.commands.console import errors_told

    config = PretrainConfig(seed=seed, start=str(start) if start else None, language_balance=balance)
    config = replace(
        config,
        shape=replace(config.shape, dropout=dropout, architecture=architecture),
        also_share=also_share,
        consistency_weight=consistency,
        halfway=halfway,
    )
    wanted: dict[Stage, int] = {route: route_steps, "ctc": ctc_steps}
    stages = {name: replace(STAGE[name], steps=steps, batch_s=batch_s, lr=lr) for name, steps in wanted.items()}
    if variation == "strong":
        stages = {name: replace(stage, augmentation=STRONG) for name, stage in stages.items()}
    if masking is not None:
        stages["ctc"] = replace(stages["ctc"], mask_probability=masking)
    args = (
        data,
        run or Path("runs") / out.name,
        out / "backbone",
        replace(config, stages=stages),
        device,
        tuple(also or ()),
    )
    with errors_told():
        run_processes(pretrain, args, processes)
