"""``tongues adapters export``: an adapter as PEFT or transformers loads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    pass


def export_command(
    name: Annotated[str, typer.Argument(help="The adapter.")],
    to: Annotated[Literal["mms", "peft"], typer.Option(help="mms: for load_adapter. peft: for PeftModel.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; of MMS, that of the model.")],
    models: Annotated[Path | None, typer.Option(help="Folder of the model.")] = None,
    code: Annotated[
        str | None, typer.Option(help="What MMS calls the language, such as deu; by its tag, if left out.")
    ] = None,
) -> None:
    """Write NAME so that transformers (load_adapter) or PEFT (PeftModel.from_pretrained) loads it."""
    from langcodes import Language

    from adapters.backbone import read_config
    from adapters.formats.mms import write_mms
    from adapters.formats.peft import write_peft
    from adapters.model import open_model
    from app.commands.console import errors_told, writing
    from app.settings import Settings

    with errors_told():
        settings = Settings.read(models=models)
        model = open_model(settings.backbone_source, settings.adapter_stores)
        backbone = read_config(model.folder)
        loaded = model.registry.load(model.registry.resolve(name=name))
        with writing(out):
            if to == "peft":
                written = write_peft(loaded, out, backbone, base_model=str(model.folder.resolve()))
            else:
                called = code or Language.get(loaded.record.language).to_alpha3()
                written = write_mms(loaded, out, called, backbone)
    for path in written:
        typer.echo(path)
    if loaded.language_model is not None:
        typer.secho("its language model stays here: neither format has a place for one", fg="yellow", err=True)
