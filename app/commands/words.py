"""`tongues words`: a language model for an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def words_command(
    models: Annotated[Path, typer.Option(help="Model folder with backbone/ and adapters/.")],
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus, whose dev split decides the weights.")],
    adapter: Annotated[str, typer.Option(help="The adapter that gets it.")],
    text: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Normalised sentences, one a line; or a model in .arpa.")
    ],
    licence: Annotated[
        str | None, typer.Option(help="Of the text, in SPDX's words: the adapter's from then on, besides its own.")
    ] = None,
    order: Annotated[int, typer.Option(min=2, max=5, help="Words that are seen together.")] = 3,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Publish ADAPTER anew with an n-gram model, for requests with decode=beam."""
    from adapters.training.weigh_words import add_language_model
    from app.commands.console import errors_told, only_python_tells

    with errors_told(), only_python_tells():
        given = text.read_bytes() if text.suffix == ".arpa" else _lines(text)
        found = add_language_model(
            models,
            data,
            adapter,
            given,
            order=order,
            licence=licence,
            device=device,
            announce=lambda line: typer.echo(line, err=True),
        )
    typer.echo(f"{found.record.name} {found.record.version}: alpha {found.alpha:g}, beta {found.beta:g}")
    for split, (without, with_it) in found.rates.items():
        typer.echo(f"{split}: WER {without.wer:.1%} -> {with_it.wer:.1%}, CER {without.cer:.1%} -> {with_it.cer:.1%}")


def _lines(text: Path) -> list[str]:
    from adapters.errors import DataError

    try:
        return [line for line in text.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{text}: not readable as UTF-8 text: {error}") from error
