"""``tongues adapters export``: an adapter as PEFT or transformers loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export_command(
    name: Annotated[str, typer.Argument(help="The adapter.")],
    to: Annotated[Literal["mms", "peft"], typer.Option(help="mms: for load_adapter. peft: for PeftModel.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; of MMS, that of the model.")],
    models: Annotated[Path | None, typer.Option(help="Folder of the model.")] = None,
    code: Annotated[
        str | None, typer.Option(help="What MMS calls the language, such as deu; by its name or tag, if left out.")
    ] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help="To PEFT, off an MMS backbone: it is loaded with adapter_attn_dim=None.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write NAME so that transformers (load_adapter) or PEFT (PeftModel.from_pretrained) loads it."""
    from adapters.backbone import read_config
    from adapters.formats.mms import expected_width, mms_code, write_mms
    from adapters.formats.peft_export import write_peft
    from adapters.model import open_model
    from adapters.repository import HubRepository
    from app.commands.console import errors_told, writing
    from app.settings import Settings

    hint = None
    with errors_told():
        settings = Settings.read(models=models)
        model = open_model(settings.backbone_source, settings.adapter_stores)
        backbone = read_config(model.folder)
        loaded = model.registry.load(model.registry.resolve(name=name))
        with writing(out):
            if to == "peft":
                source, revision = str(model.folder.resolve()), None
                if isinstance(model.repository, HubRepository):
                    source, revision = model.repository.id, model.repository.commit
                written = write_peft(
                    loaded, out, backbone, base_model=source, revision=revision, bare=bare, force=force
                )
            else:
                called = code or mms_code(name, loaded.record.language)
                written = write_mms(loaded, out, called, backbone, force=force)
                if expected_width(name, out, backbone) is None:
                    hint = f"the model is loaded with adapter_attn_dim={loaded.record.config.size} to take it"
    for path in written:
        typer.echo(path)
    if hint is not None:
        typer.secho(hint, fg="yellow", err=True)
    if loaded.language_model is not None:
        typer.secho("its language model stays here: neither format has a place for one", fg="yellow", err=True)
