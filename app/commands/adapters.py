"""``tongues adapters``: what a model can speak, and how it came to and goes elsewhere."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.export_adapter import export_command
from app.commands.extract_adapter import extract_command
from app.commands.import_adapter import import_command

if TYPE_CHECKING:
    from app.schemas import AdapterOut
    from app.settings import Settings


adapters_app = typer.Typer(
    name="adapters", invoke_without_command=True, help="List the adapters, refused ones with the reason."
)
adapters_app.command("import")(import_command)
adapters_app.command("export")(export_command)
adapters_app.command("extract")(extract_command)


@adapters_app.callback()
def adapters_command(
    context: typer.Context,
    models: Annotated[Path | None, typer.Option(help="Folder of the model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As GET /adapters tells it.")] = False,
) -> None:
    """List the adapters, refused ones with the reason."""
    from app.commands.console import errors_told
    from app.settings import Settings

    if context.invoked_subcommand is not None:
        if models is not None or as_json:
            raise typer.BadParameter(f"options of {context.invoked_subcommand} come after it")
        return
    with errors_told():
        listed = _listed(Settings.read(models=models))
    if as_json:
        content = {"adapters": [told.model_dump() for told in listed]}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=2))
    else:
        _print(listed)


def _listed(settings: Settings) -> list[AdapterOut]:
    from adapters.errors import LanguageHeadError
    from adapters.language_head import load_language_head
    from adapters.model import open_model
    from app.engine.whereabouts import unloaded
    from app.listing import listing

    registry = open_model(settings.backbone_source, settings.adapter_stores).registry
    folder, head = settings.models / "languages", None
    with contextlib.suppress(LanguageHeadError):  # then no language can be told
        if folder.exists():
            head = load_language_head(folder, fingerprint=registry.fingerprint, size=registry.size)
    return listing(registry, unloaded, head)


def _print(listed: list[AdapterOut]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for column in ("name", "language", "default", "CER %", "WER %", "parameters", "MB", "state"):
        table.add_column(column, justify="right" if column[-1] in "%sB" else "left", overflow="fold")
    for told in listed:
        table.add_row(
            told.name,
            told.language,
            "yes" if told.default else "",
            *("" if rate is None else f"{100 * rate:.1f}" for rate in (told.cer, told.wer)),
            "" if told.parameters is None else f"{told.parameters:,}",
            "" if told.bytes is None else f"{told.bytes / 1e6:.1f}",
            escape(told.state + (f": {told.reason}" if told.reason else "")),
        )
    Console().print(table)
