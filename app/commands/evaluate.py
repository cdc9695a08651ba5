"""`tongues evaluate`: CER and WER a language, through the bank and the windows that serve."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer


def evaluate_command(
    models: Annotated[Path, typer.Option(help="Model folder with backbone/ and adapters/.")],
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    lang: Annotated[
        str, typer.Option(help="Language tags, separated by commas; all with an adapter, if left out.")
    ] = "",
    adapter: Annotated[str | None, typer.Option(help="Use this adapter, whatever is the language's default.")] = None,
    source: Annotated[str, typer.Option(help="Only clips of these sources, separated by commas.")] = "",
    telephone: Annotated[bool, typer.Option(help="Send every clip through an 8 kHz mu-law line first.")] = False,
    decode: Annotated[
        Literal["greedy", "beam"], typer.Option(help="greedy, or beam: with the adapters' language models.")
    ] = "greedy",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quantise: Annotated[
        Literal["none", "int8"], typer.Option(help="none, or int8 on a CPU: what TONGUES_QUANTISE costs.")
    ] = "none",
) -> None:
    """Transcribe a split, rows of all languages mixed in one batch, and compare with what was to be said."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from adapters.training.evaluate import evaluate
    from app.commands.console import errors_told, listed, only_python_tells

    with errors_told(), only_python_tells() if decode == "beam" else nullcontext():
        rates = evaluate(
            models,
            data,
            split,
            languages=listed(lang),
            adapter=adapter,
            sources=listed(source),
            telephone=telephone,
            device=device,
            quantise=quantise,
            beam=decode == "beam",
            announce=lambda line: typer.echo(line, err=True),
        )
    mean_cer = sum(rate.cer for rate in rates.values()) / len(rates)
    mean_wer = sum(rate.wer for rate in rates.values()) / len(rates)
    if as_json:
        each = {language: asdict(rate) for language, rate in rates.items()}
        typer.echo(json.dumps({"split": split, "mean": {"cer": mean_cer, "wer": mean_wer}, "languages": each}))
        return
    table = Table(title=f"{models}, {split} split")
    for column in ("language", "clips", "minutes", "CER %", "WER %"):
        table.add_column(column, justify="left" if column == "language" else "right")
    for language, rate in rates.items():
        table.add_row(
            language, str(rate.clips), f"{rate.seconds / 60:.1f}", f"{rate.cer * 100:.1f}", f"{rate.wer * 100:.1f}"
        )
    table.add_row("mean", "", "", f"{mean_cer * 100:.1f}", f"{mean_wer * 100:.1f}", end_section=True)
    Console().print(table)
