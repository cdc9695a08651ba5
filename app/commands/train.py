"""`tongues train`: adapters for languages on a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from adapters.store import AdapterStore


def train_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    models: Annotated[Path, typer.Option(help="Model folder with backbone/; adapters go to its adapters/.")],
    lang: Annotated[str, typer.Option(help="Language tags, separated by commas.")],
    name: Annotated[str | None, typer.Option(help="Name of the adapter; the language, if left out.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder for checkpoints; runs/MODEL, if left out.")] = None,
    method: Annotated[
        str, typer.Option(help="bottleneck (the paper's), lora, head (nothing inside the layers), or full fine-tuning.")
    ] = "bottleneck",
    bottleneck: Annotated[int, typer.Option(min=1, max=65_536, help="Width of the bottleneck.")] = 32,
    rank: Annotated[int, typer.Option(min=1, max=65_536, help="Rank of LoRA.")] = 8,
    layers: Annotated[
        int | None, typer.Option(min=0, help="Layers from the top; the top half, if left out, or all with full.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Model folder that full fine-tuning writes.")] = None,
    norms: Annotated[str, typer.Option(help="Trained layer norms: none, adapted or all.")] = "adapted",
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 600,
    lr: Annotated[
        float, typer.Option(help="Highest learning rate; 1e-3 to 3e-3 suits adapters, 1e-4 full fine-tuning.")
    ] = 2e-3,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many looks at the dev split, 100 updates apart, in vain.")
    ] = None,
    keep_trunk: Annotated[
        bool, typer.Option(help="Compute what is frozen once and keep it beside the manifest.")
    ] = True,
    source: Annotated[str, typer.Option(help="Only clips of these sources, separated by commas.")] = "",
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Train on so much of the clips at most.")] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="A further manifest to learn from, of other voices say; may be given several times."),
    ] = None,
    also_share: Annotated[float, typer.Option(min=0.01, max=0.95, help="Of the seconds, those from --also.")] = 0.5,
    telephone: Annotated[
        float, typer.Option(min=0, max=1, help="Of the varied clips, those sent through a telephone line.")
    ] = 0.15,
    variation: Annotated[
        Literal["usual", "strong"], typer.Option(help="Of the audio; strong where few voices were recorded.")
    ] = "usual",
    seed: Annotated[int, typer.Option(min=0, max=2**32, help="Decides everything random.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share an update, and the cores or GPUs.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train and publish an adapter for each language; started again, it goes on where it stopped."""
    from dataclasses import replace
    from functools import partial
    from typing import cast

    from adapters.config import Norms
    from adapters.errors import DataError
    from adapters.language import language_tag
    from adapters.record import check_name
    from adapters.store import AdapterStore
    from adapters.training.augmentation import STRONG
    from adapters.training.clips import clips_for
    from adapters.training.processes import run_processes
    from adapters.training.publish_once import check_replaces
    from adapters.training.train import train
    from adapters.training.train_config import METHODS, TrainConfig
    from app.commands.console import errors_told, listed

    tags = list(dict.fromkeys(language_tag(tag) or tag for tag in listed(lang)))
    with errors_told():
        if not tags:
            raise DataError("--lang names a language, such as 'de', or several, separated by commas")
        if not 0 < lr < 1:
            raise DataError(f"--lr is between 0 and 1, such as 2e-3, not {lr}")
        if norms not in ("none", "adapted", "all"):
            raise DataError(f"--norms takes none, adapted or all, not {norms!r}")
        if method not in METHODS:
            raise DataError(f"--method takes one of {', '.join(METHODS)}, not {method!r}")
        if name is not None and len(tags) != 1:
            raise DataError("--name goes with one language; without it each adapter is named for its language")
        if out is not None and len(tags) != 1:
            raise DataError("--out goes with one language: full fine-tuning makes a model of its own for each")
        config = TrainConfig(
            method=method,
            size=rank if method == "lora" else bottleneck,
            layers=layers,
            norms=cast(Norms, norms),
            steps=steps,
            lr=lr,
            sources=tuple(listed(source)),
            minutes=minutes,
            also_share=also_share,
            patience=patience,
            augmentation=replace(STRONG if variation == "strong" else TrainConfig().augmentation, telephone=telephone),
            seed=seed,
        )
        store = AdapterStore((out or models) / "adapters")
        for tag in tags:  # what is wrong with the last is told before the first is trained
            check_name(name or tag)
            check_replaces(store, name or tag, tag)
            clips_for(data, tag, config, also or ())
        for tag in tags:
            adapter = name or tag
            had = _has_language_model(store, adapter)
            folder = (run or Path("runs") / models.name) / adapter
            told = partial(train, name=adapter, out=out, device=device, keep_trunk=keep_trunk, also=tuple(also or ()))
            with _room(out):
                run_processes(told, (data, models, tag, folder, config), processes)
            record = store.record(adapter)
            rates = record.metrics["test"]
            typer.echo(f"{record.name} {record.version}: test CER {rates['cer']:.1%}, WER {rates['wer']:.1%}")
            if had and record.language_model is None:
                typer.echo(
                    f"{adapter}: the language model of the version before is gone; `tongues words` gives it one",
                    err=True,
                )


@contextmanager
def _room(models: Path | None) -> Iterator[None]:
    """For adapters: made before anything is trained, so that what cannot be is told, and gone where nothing came."""
    if models is None:
        yield
        return
    store = models / "adapters"
    made = [folder for folder in (store, *store.parents) if not folder.exists()]
    store.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # one that is not empty any more
            for folder in made:
                folder.rmdir()


def _has_language_model(store: AdapterStore, adapter: str) -> bool:
    """Whether the adapter that is published there now brings one."""
    from adapters.errors import TonguesError

    try:
        return store.record(adapter).language_model is not None
    except TonguesError:
        return False
