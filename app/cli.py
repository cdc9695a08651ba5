"""The ``tongues`` command. Each part imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

import sys

import typer

from app.commands.adapters import adapters_app
from app.commands.backbone import backbone_app
from app.commands.console import errors_told
from app.commands.data import data_app
from app.commands.evaluate import evaluate_command
from app.commands.languages import languages_command
from app.commands.parameters import parameters_command
from app.commands.pretrain import pretrain_command
from app.commands.results import results_command, routes_command
from app.commands.serve import serve_command
from app.commands.train import train_command
from app.commands.transcribe import transcribe_command
from app.commands.words import words_command

app = typer.Typer(
    name="tongues",
    help="Speech recognition in many languages at once: one backbone, a small adapter a language.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve_command)
app.command("transcribe")(transcribe_command)
app.add_typer(adapters_app)
app.add_typer(backbone_app)
app.add_typer(data_app)
app.command("pretrain")(pretrain_command)
app.command("train")(train_command)
app.command("words")(words_command)
app.command("languages")(languages_command)
app.command("evaluate")(evaluate_command)
app.command("results")(results_command)
app.command("routes")(routes_command)
app.command("parameters")(parameters_command)


def main() -> None:
    """The entry point of the distribution. What a command needs and is not installed is told like any other error."""
    try:
        with errors_told():
            app()
    except typer.Exit as done:
        sys.exit(done.exit_code)


if __name__ == "__main__":
    main()
