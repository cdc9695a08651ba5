"""`tongues languages`: what tells languages apart, fitted on a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer


def languages_command(
    models: Annotated[Path, typer.Option(help="Model folder with backbone/ and adapters/; languages/ goes there.")],
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    also: Annotated[
        list[Path] | None,
        typer.Option(help="A further manifest, for languages that --data has no clips of; may be given several times."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Fit the language head, by which `lang=auto` is answered, and report how often it is right.

    To be run again when an adapter is published that `auto` is to know or whose backbone is another.
    """
    from rich.console import Console
    from rich.table import Table

    from app.commands.console import errors_told

    with errors_told():
        from adapters.training.languages import train_language_head

        head = train_language_head(
            models, data, also=also or (), device=device, announce=lambda line: typer.echo(line, err=True)
        )
        head.save(models / "languages")
    report = head.report
    table = Table(title=f"{models}: test clips of 2 s and more; the language is right, in percent")
    for column in ("language", "clips", "head alone", "score alone", "both"):
        table.add_column(column, justify="left" if column == "language" else "right")

    def add(name: str, clips: int, right: Mapping[str, float]) -> None:
        table.add_row(name, str(clips), *(f"{right[way] * 100:.1f}" for way in ("head", "score", "both")))

    for language, right in report["languages"].items():
        add(language, right["clips"], right)
    table.add_section()
    add("all", report["clips_long"], report["long"])
    add("all, of any length", report["clips"], report["all"])
    table.add_section()
    for pair, unheard in report["held_out"].items():
        if unheard["clips_long"]:
            add(f"{pair}, never heard by the head", unheard["clips_long"], unheard["long"])
    Console().print(table)
    typer.echo(f"{report['candidates']} languages are heard for a clip, in the mean")
