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
        Path,
        typer.Option(
            exists=True, dir_okay=False, help="Normalised sentences, one a line; or a model, .arpa or .arpa.gz."
        ),
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
        model = _model(text)
        found = add_language_model(
            models,
            data,
            adapter,
            _lines(text) if model is None else model,
            order=order,
            licence=licence,
            device=device,
            announce=lambda line: typer.echo(line, err=True),
        )
    typer.echo(f"{found.record.name} {found.record.version}: alpha {found.alpha:g}, beta {found.beta:g}")
    for split, (without, with_it) in found.rates.items():
        typer.echo(f"{split}: WER {without.wer:.1%} -> {with_it.wer:.1%}, CER {without.cer:.1%} -> {with_it.cer:.1%}")


def _model(text: Path) -> bytes | None:
    """ARPA text, of a file that is named for holding some."""
    from adapters.errors import DataError
    from adapters.language_model import unpacked

    name = text.name.lower()
    if name.endswith(".arpa"):
        return text.read_bytes()
    if not name.endswith(".arpa.gz"):
        return None
    try:
        return unpacked(text.read_bytes())
    except DataError as error:
        raise DataError(f"{text}: {error}") from error


def _lines(text: Path) -> list[str]:
    from adapters.errors import DataError
    from adapters.language_model import unmarked

    try:
        lines = text.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{text}: not readable as UTF-8 text: {error}") from error
    sentences = []
    for number, line in enumerate(lines, start=1):
        try:
            sentences.append(unmarked(line))
        except DataError as error:
            raise DataError(f"{text}:{number}: {error}") from error
    return [sentence for sentence in sentences if sentence]
