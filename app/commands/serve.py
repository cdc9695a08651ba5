"""``tongues serve``: the service over HTTP."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.settings import Settings


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder of the model; the only one in models/ if left out.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A folder, or a repository of the hub, OWNER/NAME[@REVISION], in its place.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of a forward on a CPU.")] = None,
    quantise: Annotated[str | None, typer.Option(help="none, or int8 on a CPU: smaller, a little less exact.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve the model. What is left out here comes from TONGUES_* in the environment."""
    from app.commands.console import errors_told, log_to_stderr
    from app.settings import Settings

    with errors_told():
        settings = Settings.read(
            host=host,
            port=port,
            models=models,
            backbone=backbone,
            device=device,
            threads=threads,
            quantise=quantise,
            log_level=log_level,
        )
    log_to_stderr(settings.log_level)
    for name in Settings.unknown():
        logging.getLogger("tongues").warning("%s is no setting: nothing reads it", name)
    raise typer.Exit(serve(settings))


def serve(settings: Settings) -> int:
    """Run until told to stop. The exit status: 1 where the model could not be loaded, 3 where the port not be had."""
    from adapters.heap import keep_freed_memory, spare_what_is_loaded
    from app.main import create_app
    from app.server import Server

    def stop() -> None:
        server.should_exit = True

    keep_freed_memory()
    app = create_app(settings, on_ready=spare_what_is_loaded, on_failure=stop)
    server = Server(app, app.state.service, settings)
    server.run()
    return int(app.state.service.failed or not server.started)
