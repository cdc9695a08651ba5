"""`tongues data`: make a corpus, pack it, unpack it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress as Bar

from app.commands.console import errors_told, listed

_MOST_TOLD = 20
data_app = typer.Typer(
    name="data",
    help="Make a corpus, of packages or of recordings of one's own; pack it, unpack it.",
    no_args_is_help=True,
)


@data_app.command("build")
def build_command(
    out: Annotated[Path, typer.Option(help="Folder for audio/, manifest.jsonl, report.json and left-out.jsonl.")],
    languages: Annotated[str, typer.Option(help="Tags, separated by commas (es,fr); all, if left out.")] = "",
    packages: Annotated[
        Path | None,
        typer.Option(help="Folder with the .deb files, or with an unpacked usr/; else apt-get fetches them."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
) -> None:
    """Debian packages with speech -> 16 kHz FLAC and a manifest. Started again, it goes on where it stopped."""
    from adapters.training.corpus.build import build
    from adapters.training.corpus.report import report_table

    console = Console(stderr=True)
    with errors_told(console):
        wanted = listed(languages)
        report = build(out, wanted, packages, workers=workers, console=console)
    Console().print(report_table(report))


@data_app.command("import")
def import_command(
    table: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="A CSV or TSV with the columns path and text (split and voice, if there are), or a folder of "
            "recordings, each with a .txt of its name.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for audio/, manifest.jsonl, report.json and left-out.jsonl.")],
    lang: Annotated[str, typer.Option(help="Language tag.")],
    licence: Annotated[str, typer.Option(help="Of the recordings, in SPDX's words; a trained adapter names it.")],
    source: Annotated[str, typer.Option(help="A name for where they come from.")] = "own",
    audio: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Where the table's files lie, if not beside it.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
) -> None:
    """Recordings of one's own, in any format -> trimmed 16 kHz FLAC, normalised texts and a manifest."""
    from adapters.training.corpus.report import LEFT_OUT, report_table
    from adapters.training.corpus.table import import_table

    console = Console(stderr=True)
    with errors_told(console):
        report, rejects = import_table(
            table, out, lang, licence=licence, source=source, audio=audio, workers=workers, console=console
        )
    for where, reason in rejects[:_MOST_TOLD]:
        typer.echo(f"left out: {where}: {reason}", err=True)
    if len(rejects) > _MOST_TOLD:
        typer.echo(f"left out: {len(rejects) - _MOST_TOLD} more", err=True)
    if rejects:
        typer.echo(f"{len(rejects)} are left out, all listed in {out / LEFT_OUT}", err=True)
    Console().print(report_table(report))


@data_app.command("synthesise")
def synthesise_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of the recordings, from `tongues data build`.")],
    out: Annotated[Path, typer.Option(help="The manifest to write, beside audio/.")],
    lang: Annotated[str, typer.Option(help="Language tags, separated by commas.")],
    packages: Annotated[Path | None, typer.Option(help="As for build: where the texts are.")] = None,
    takes: Annotated[int, typer.Option(min=0, help="Voices of eSpeak NG that say each sentence.")] = 1,
    voices: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A TOML file of further voices, commands of other synthesizers."
        ),
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Sentences that each of those says at most.")] = 1000,
    most: Annotated[
        int | None, typer.Option(min=1, help="With sentences of a game's stories, up to so many a language.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that speak.")] = 2,
) -> None:
    """Sentences in the voices of synthesizers, for languages without recordings or to pretrain on besides them."""
    from adapters.training.corpus.synthetic import synthesise
    from adapters.training.corpus.voices import read_voices

    console = Console(stderr=True)
    tags = listed(lang)
    with errors_told(console), Bar(console=console) as bar:
        task = bar.add_task("speaking", total=None)
        clips = synthesise(
            data,
            out,
            tags,
            packages,
            takes=takes,
            most=most,
            voices=[] if voices is None else read_voices(voices),
            each=each,
            workers=workers,
            announce=console.print,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(f"{out}: {len(clips)} clips, {sum(clip.seconds for clip in clips) / 60:.0f} minutes")


@data_app.command("sentences")
def sentences_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of the recordings, from `tongues data build`.")],
    lang: Annotated[str, typer.Option(help="Language tag.")],
    packages: Annotated[Path | None, typer.Option(help="As for build: where the texts are.")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="With sentences of a game's stories, up to so many.")] = None,
) -> None:
    """Print what the packages say in a language, recorded or not, but for what is kept for dev and test."""
    from adapters.training.corpus.synthetic import untested

    console = Console(stderr=True)
    with errors_told(console):
        for text in untested(data, lang, packages, most=most, announce=console.print):
            typer.echo(text)


@data_app.command("splice")
def splice_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of the recordings, from `tongues data build`.")],
    backbone: Annotated[Path, typer.Option(help="A backbone/ with a CTC head, which hears where words end.")],
    out: Annotated[Path, typer.Option(help="The manifest to write, beside audio/.")],
    lang: Annotated[str, typer.Option(help="Language tags, separated by commas; all, if left out.")] = "",
    minutes: Annotated[float, typer.Option(min=0.1, help="The most that is made in a language.")] = 60.0,
) -> None:
    """New sentences of recorded words, to pretrain on besides the recordings."""
    from adapters.training.splicing import splice

    console = Console(stderr=True)
    with errors_told(console), Bar(console=console) as bar:
        task = bar.add_task("listening", total=None)
        clips = splice(
            data,
            backbone,
            out,
            listed(lang),
            minutes=minutes,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(f"{out}: {len(clips)} clips, {sum(clip.seconds for clip in clips) / 60:.0f} minutes")


@data_app.command("pack")
def pack_command(
    data: Annotated[Path, typer.Option(help="The manifest.jsonl of a corpus.")],
    out: Annotated[Path, typer.Option(help="Folder for the Opus files and index.jsonl.")],
    kbits: Annotated[int, typer.Option(help="Thousand bits a second.")] = 16,
) -> None:
    """A corpus -> a few long Opus files, each under 16 MiB, and an index."""
    from adapters.training.corpus.pack import pack

    console = Console(stderr=True)
    with errors_told(console), Bar(console=console) as bar:
        task = bar.add_task("packing", total=None)
        files = pack(
            data,
            out,
            bits_per_second=kbits * 1000,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for file in files:
        typer.echo(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")


@data_app.command("unpack")
def unpack_command(
    index: Annotated[Path, typer.Option(help="The index.jsonl of a packed corpus.")],
    out: Annotated[Path, typer.Option(help="Folder for audio/ and manifest.jsonl.")],
) -> None:
    """A packed corpus -> FLAC and a manifest. Started again, it goes on where it stopped."""
    from adapters.training.corpus.pack import unpack

    console = Console(stderr=True)
    with errors_told(console), Bar(console=console) as bar:
        task = bar.add_task("unpacking", total=None)
        manifest = unpack(index, out, progress=lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(manifest)
