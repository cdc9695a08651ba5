"""`tongues languages`: what tells languages apart, fitted on a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def languages_command(
    models: Annotated[Path, typer.Option(help="Model folder with backbone/ and adapters/; languages/ goes there.")],
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    hold_out: Annotated[
        str,
        typer.Option(
            help="LANGUAGE/SOURCE pairs, separated by commas: leave them out and report on them; nothing is written."
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Fit the language head, by which `lang=auto` is answered, and report how often it is right.

    To be run again when an adapter is published that `auto` is to know or whose backbone is another.
    """
    from rich.console import Console
    from rich.table import Table

    from adapters.errors import DataError
    from adapters.training.languages import train_language_head
    from app.commands.console import errors_told

    with errors_told():
        held_out = set()
        for pair in filter(None, map(str.strip, hold_out.split(","))):
            language, mark, source = pair.partition("/")
            if not (language and mark and source):
                raise DataError(f"--hold-out takes LANGUAGE/SOURCE, such as es/asterisk, not {pair!r}")
            held_out.add((language, source))
        head = train_language_head(
            models, data, held_out=held_out, device=device, announce=lambda line: typer.echo(line, err=True)
        )
        if not held_out:
            head.save(models / "languages")
    report = head.report
    of = "clips of the sources that were held out" if held_out else "test clips"
    table = Table(title=f"{models}: {report['clips_long']} {of}, 2 s and longer; right in percent")
    for column in ("language", "head alone", "score alone", "both"):
        table.add_column(column, justify="left" if column == "language" else "right")
    ways = ("head", "score", "both")
    for language, right in report["languages"].items():
        table.add_row(language, *(f"{right[way] * 100:.1f}" for way in ways))
    table.add_section()
    table.add_row("all", *(f"{report['long'][way] * 100:.1f}" for way in ways))
    table.add_row("all, of any length", *(f"{report['all'][way] * 100:.1f}" for way in ways))
    Console().print(table)
    typer.echo(f"{report['candidates']} languages are heard for a clip, in the mean")
