"""``tongues backbone``: checkpoints made fit to be served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

backbone_app = typer.Typer(name="backbone", help="Checkpoints from folders and hubs.", no_args_is_help=True)


@backbone_app.command("convert")
def convert_command(
    source: Annotated[str, typer.Argument(help="A folder, or OWNER/NAME[@REVISION] of the hub.")],
    out: Annotated[Path, typer.Option(help="Folder to write; not there yet.")],
) -> None:
    """Make safetensors of a checkpoint that has only a pickle; what else that may hold is not run."""
    from adapters.backbone import fingerprint
    from adapters.formats.pickled import convert
    from adapters.repository import open_repository
    from app.commands.console import errors_told, log_to_stderr

    log_to_stderr()
    with errors_told():
        made = convert(open_repository(source), out)
        typer.echo(f"{made}: fingerprint {fingerprint(made)}; tongues serve --backbone {made}")


@backbone_app.command("fetch")
def fetch_command(
    source: Annotated[str, typer.Argument(help="OWNER/NAME[@REVISION] of the hub.")],
) -> None:
    """Fetch a backbone ahead, so that a service without a network can start with it."""
    from adapters.backbone import fingerprint
    from adapters.repository import fetch_backbone, open_repository
    from app.commands.console import errors_told, log_to_stderr

    log_to_stderr()
    with errors_told():
        repository = open_repository(source)
        folder = fetch_backbone(repository)
        typer.echo(f"{repository.name}: fingerprint {fingerprint(folder)}, in {folder}")


@backbone_app.command("average")
def average_command(
    folders: Annotated[list[Path], typer.Argument(help="Backbones that `tongues pretrain` made from one start.")],
    out: Annotated[Path, typer.Option(help="Backbone folder to write.")],
) -> None:
    """Write the mean of the weights of several runs, which hears better than each of them."""
    from adapters.backbone import fingerprint
    from adapters.training.averaging import average
    from app.commands.console import errors_told

    with errors_told():
        average(folders, out)
        typer.echo(f"{out}: fingerprint {fingerprint(out)}")
