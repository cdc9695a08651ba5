"""`tongues results`: the paper's experiment, trial by trial, and its page; `tongues routes`: ways to a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def results_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    models: Annotated[Path, typer.Option(help="Model folder whose backbone/ is adapted; nothing in it changes.")],
    out: Annotated[Path, typer.Option(help="Folder for trials.jsonl, paper.md and its figures.")] = Path("docs"),
    run: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/results"),
    lang: Annotated[
        str, typer.Option(help="Languages for the three main methods; all of the corpus, if left out.")
    ] = "",
    beside: Annotated[
        str, typer.Option(help="Another model folder to try adapters on, as NAME=FOLDER; a HuBERT, say.")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, help="Updates of each trial.")] = 300,
    batch_s: Annotated[float, typer.Option(help="Seconds of audio an update.")] = 24.0,
    at_once: Annotated[int, typer.Option(min=1, help="Trials side by side, which share the cores.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train every trial of the grid that is missing, hours on a CPU, and write the page again after each.

    Started again, it goes on where it stopped.
    """
    from adapters.backbone import fingerprint, read_config
    from adapters.errors import DataError
    from adapters.training.manifest import clips_key, read_manifest
    from adapters.training.results import Notebook, run_trials
    from adapters.training.results_page import draw, page
    from adapters.training.train_config import TrainConfig
    from app.commands.console import errors_told, listed

    def write(notebook: Notebook) -> None:
        trained = {"steps": steps, "batch_s": batch_s}
        found = [one for one in notebook.outcomes.values() if trained.items() <= one.config.items()]
        (out / "paper.md").write_text(page(found, layers, draw(found, layers, out)), encoding="utf-8")

    with errors_told():
        layers = read_config(models / "backbone").num_hidden_layers
        out.mkdir(parents=True, exist_ok=True)
        name, _, folder = beside.partition("=")
        if beside and not (name and folder):
            raise DataError(f"--beside takes NAME=FOLDER, hubert=models/hubert say, not {beside!r}")
        others = {name: Path(folder)} if beside else {}
        known = {on: fingerprint(one / "backbone") for on, one in {"": models, **others}.items()}
        notebook = Notebook(out / "trials.jsonl", known, clips_key(read_manifest(data)))
        run_trials(
            data,
            models,
            run,
            notebook,
            TrainConfig(size=64, steps=steps, batch_s=batch_s),
            languages=listed(lang),
            others=others,
            at_once=at_once,
            device=device,
            announce=lambda line: typer.echo(line, err=True),
            on_outcome=lambda: write(notebook),
        )
        write(notebook)


def routes_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    also: Annotated[
        Path | None,
        typer.Option(help="A manifest of synthetic speech, for the route of phones; without it that is left out."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for routes.jsonl and routes.md.")] = Path("docs"),
    run: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/routes"),
    route_steps: Annotated[int, typer.Option(min=1, help="Updates before the letters.")] = 1_000,
    ctc_steps: Annotated[int, typer.Option(min=1, help="Updates of CTC after them.")] = 1_500,
    batch_s: Annotated[float, typer.Option(help="Seconds of audio an update.")] = 24.0,
    steps: Annotated[int, typer.Option(min=1, help="Updates of each adapter.")] = 300,
    lr: Annotated[str, typer.Option(help="Learning rates that each is tried with, separated by commas.")] = "1e-3,2e-3",
    lang: Annotated[str, typer.Option(help="Languages whose adapters decide, separated by commas.")] = "es,ro",
    processes: Annotated[int, typer.Option(min=1, help="Processes that share an update, and the cores.")] = 1,
    at_once: Annotated[int, typer.Option(min=1, help="Ways side by side, which share the cores.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Compare ways to a small backbone at equal compute, by what adapters make of it: hours on a CPU.

    Started again, it goes on where it stopped.
    """
    from adapters.errors import DataError
    from adapters.training.corpus.synthesis import sounds_of
    from adapters.training.manifest import read_manifest
    from adapters.training.pretrain_config import PretrainConfig
    from adapters.training.routes import ROUTES, Made, run_ways, table, ways
    from adapters.training.train_config import TrainConfig
    from app.commands.console import errors_told, listed

    head = "# Ways to a small backbone\n\nMade by `tongues routes`; do not edit.\n\n"

    def write(made: list[Made]) -> None:
        (out / "routes.md").write_text(f"{head}{table(made)}\n", encoding="utf-8")

    with errors_told():
        clips, sounds = read_manifest(data), True
        try:
            sounds_of(clip for clip in clips if clip.split == "train")
        except DataError as error:
            sounds = False
            typer.echo(f"without sounds half way up: {error}", err=True)
        routes = [route for route in ROUTES if also or route != "phones"]
        wanted = ways(route_steps, ctc_steps, batch_s, routes, rates=_rates(lr), sounds=sounds)
        out.mkdir(parents=True, exist_ok=True)
        made = run_ways(
            wanted,
            data,
            also,
            run,
            out / "routes.jsonl",
            TrainConfig(size=64, layers=PretrainConfig().shape.layers, steps=steps, lr=2e-3),
            languages=listed(lang),
            processes=processes,
            at_once=at_once,
            device=device,
            announce=lambda line: typer.echo(line, err=True),
            on_made=write,
        )
        write(made)


def _rates(listed: str) -> list[float]:
    try:
        rates = [float(rate) for rate in listed.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise typer.BadParameter(f"{listed!r}: learning rates are like 1e-3,2e-3", param_hint="--lr")
    return rates
