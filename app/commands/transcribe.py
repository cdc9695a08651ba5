"""``tongues transcribe``: the words of a file, by the same path as the service's, in this process."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.formats import Told
    from app.schemas import TranscribeQuery
    from app.settings import Settings


def transcribe_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Audio or video.")],
    lang: Annotated[str | None, typer.Option(help="What is spoken: de, deu, German.")] = None,
    adapter: Annotated[str | None, typer.Option(help="One adapter by its name.")] = None,
    format: Annotated[str, typer.Option(help="text, json, verbose_json, srt or vtt.")] = "text",
    words: Annotated[bool, typer.Option("--words", help="Words with times and confidence, as JSON.")] = False,
    decode: Annotated[str | None, typer.Option(help="greedy, or beam: with the adapter's language model.")] = None,
    hotwords: Annotated[str, typer.Option(help="Words to be listened for, separated by commas.")] = "",
    models: Annotated[Path | None, typer.Option(help="Folder of the model.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
) -> None:
    """Print what is said in FILE."""
    from app.commands.console import errors_told, only_python_tells
    from app.formats import rendered
    from app.schemas import TranscribeQuery
    from app.settings import Settings
    from app.upload import validated

    with errors_told():
        settings = Settings.read(models=models, device=device)
        chosen = "json" if words and format == "text" else format
        asked = {"lang": lang, "adapter": adapter, "format": chosen, "words": words}
        query = validated(TranscribeQuery, {**asked, "decode": decode, "hotwords": hotwords})
        with only_python_tells() if query.decode == "beam" or query.hotwords else nullcontext():
            told = asyncio.run(_transcribed(settings, file, query))
    typer.echo(rendered(told, query.format, words=query.words), nl=False)
    if told.truncated:
        typer.secho("the audio breaks off, or parts of it could not be read", fg="yellow", err=True)


async def _transcribed(settings: Settings, path: Path, query: TranscribeQuery) -> Told:
    from app.audio.source import AudioSource
    from app.recognition import choose, decoding_of, told_of
    from app.service import make_engine

    forever = float("inf")  # the deadline and the longest audio are for those who share a service
    engine = make_engine(settings.model_copy(update={"request_timeout_s": forever}))
    await engine.start()
    chosen = choose(engine, query.lang, query.adapter)
    decoding = decoding_of(query.decode, query.hotwords)
    with path.open("rb") as file, AudioSource(file, max_audio_s=forever) as audio, engine.admit():
        answer = await engine.hear(chosen, audio, request_id=path.name, decoding=decoding)
    await engine.drain()
    return told_of(answer, truncated=audio.truncated, request_id=path.name)
