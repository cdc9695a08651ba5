"""`tongues train`: adapters for languages on a frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    models: Annotated[Path, typer.Option(help="Model folder with backbone/; adapters go to its adapters/.")],
    lang: Annotated[str, typer.Option(help="Language tags, separated by commas.")],
    name: Annotated[str | None, typer.Option(help="Name of the adapter; the language, if left out.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder for checkpoints; runs/MODEL, if left out.")] = None,
    bottleneck: Annotated[int, typer.Option(min=1, help="Width of the bottleneck.")] = 32,
    layers: Annotated[
        int | None, typer.Option(min=0, help="Adapted layers from the top; the top half, if left out.")
    ] = None,
    norms: Annotated[str, typer.Option(help="Trained layer norms: none, adapted or all.")] = "adapted",
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 600,
    lr: Annotated[float, typer.Option(help="Highest learning rate; 1e-3 to 3e-3 suits adapters.")] = 2e-3,
    source: Annotated[str, typer.Option(help="Only clips of these sources, separated by commas.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Decides everything random.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train and publish an adapter for each language; started again, it goes on where it stopped."""
    from typing import cast

    from adapters.config import Norms
    from adapters.errors import DataError
    from adapters.training.train import TrainConfig, train
    from app.commands.console import errors_told

    tags = [tag.strip() for tag in lang.split(",") if tag.strip()]
    with errors_told():
        if norms not in ("none", "adapted", "all"):
            raise DataError(f"--norms takes none, adapted or all, not {norms!r}")
        if name is not None and len(tags) != 1:
            raise DataError("--name goes with one language; without it each adapter is named for its language")
        config = TrainConfig(
            size=bottleneck,
            layers=layers,
            norms=cast(Norms, norms),
            steps=steps,
            lr=lr,
            sources=tuple(s.strip() for s in source.split(",") if s.strip()),
            seed=seed,
        )
        for tag in tags:
            adapter = name or tag
            folder = (run or Path("runs") / models.name) / adapter
            record = train(data, models, tag, folder, config, name=adapter, device=device)
            rates = record.metrics["test"]
            typer.echo(f"{record.name} {record.version}: test CER {rates['cer']:.1%}, WER {rates['wer']:.1%}")
