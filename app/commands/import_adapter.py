"""``tongues adapters import``: an adapter of PEFT or of MMS, published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_command(
    path: Annotated[
        Path,
        typer.Argument(help="A folder of PEFT, or adapter.LANG.safetensors of MMS, or the folder where that lies."),
    ],
    name: Annotated[str, typer.Option(help="What it will be called.")],
    lang: Annotated[str, typer.Option(help="What it speaks: de, deu, German.")],
    models: Annotated[Path | None, typer.Option(help="Folder of the model.")] = None,
    vocab: Annotated[Path | None, typer.Option(help="Its vocab.json, where none lies beside it.")] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help="Of PEFT, on an MMS backbone: it was trained with adapter_attn_dim=None.")
    ] = False,
    default: Annotated[bool, typer.Option("--default", help="It answers for its language.")] = False,
) -> None:
    """Publish an adapter that PEFT or transformers saved, in the first store of adapters.

    No file of theirs names a backbone by its weights, so it is accepted by shape and shown as not verified.
    """
    from adapters.backbone import read_config
    from adapters.encoder import size_of
    from adapters.formats.foreign import read_foreign
    from adapters.record import check_name
    from adapters.repository import fetch_backbone, open_repository
    from adapters.store import AdapterStore
    from app.commands.console import errors_told, writing
    from app.settings import Settings

    with errors_told():
        check_name(name)
        settings = Settings.read(models=models)
        store = AdapterStore.at(settings.adapter_stores[0])
        backbone = read_config(fetch_backbone(open_repository(str(settings.backbone_source))))
        size = size_of(backbone)
        found = read_foreign(name, path, size, backbone, language=lang, vocab=vocab, bare=bare)
        told = {} if found.base_model is None else {"base_model": found.base_model}
        with writing(store):
            record = store.publish(
                name,
                found.tensors,
                found.vocab,
                language=lang,
                config=found.config,
                size=size,
                fingerprint=None,
                default=default,
                training={"imported": path.resolve().name, **told},
            )
    on = f", trained on {found.base_model}" if found.base_model is not None else ""
    typer.echo(f"{record.name} {record.version}: {record.config.method} {record.config.size}, {record.language}{on}")
