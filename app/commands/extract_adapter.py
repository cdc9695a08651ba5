"""``tongues adapters extract``: an adapter out of a whole fine-tuned checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

    from adapters.frontend import Geometry


def extract_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="A folder with config.json, model.safetensors and vocab.json, or a model of ours.")
    ],
    name: Annotated[str, typer.Option(help="What the adapter will be called.")],
    lang: Annotated[str, typer.Option(help="What it speaks: de, deu, German.")],
    models: Annotated[Path | None, typer.Option(help="Folder of the model that it was fine-tuned from.")] = None,
    audio: Annotated[
        Path, typer.Option(help="Recordings to measure on, a file or a folder; best of its own language.")
    ] = Path("examples"),
    rank_limit: Annotated[
        int | None, typer.Option(min=1, help="Highest rank; a tenth of the backbone's parameters, if left out.")
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="It answers for its language.")] = False,
) -> None:
    """Make an adapter of what CHECKPOINT differs in from the backbone.

    Its head, its layer norms, and the difference of its linears at the smallest rank with which 99 % of the frames of
    the recordings have the same best token and logits are off by 2 % at most. Says why where that cannot be.
    """
    from adapters.backbone import fingerprint, read_normalised
    from adapters.extraction import extract
    from adapters.formats.checkpoint import read_checkpoint, read_plain, rounding
    from adapters.record import check_name
    from adapters.repository import fetch_backbone, open_repository
    from adapters.store import AdapterStore
    from app.commands.console import errors_told, writing
    from app.settings import Settings

    with errors_told():
        check_name(name)
        settings = Settings.read(models=models)
        store = AdapterStore.at(settings.adapter_stores[0])
        backbone = fetch_backbone(open_repository(str(settings.backbone_source)))
        encoder = read_plain(backbone)
        clips = _clips(audio, encoder.geometry)
        found = extract(
            name,
            read_checkpoint(name, checkpoint, lang),
            encoder,
            clips,
            normalised=read_normalised(backbone),
            rounding=rounding(backbone),
            rank_limit=rank_limit,
            announce=lambda line: typer.echo(line, err=True),
        )
        agreement = {"frames_agreeing": found.agreement.frames, "logit_error": found.agreement.logit_error}
        with writing(store):
            record = store.publish(
                name,
                found.adapter.tensors,
                found.adapter.vocab,
                language=lang,
                config=found.adapter.config,
                size=encoder.size,
                fingerprint=fingerprint(backbone),
                default=default,
                training={"extracted": checkpoint.resolve().name, **agreement},
            )
    typer.echo(
        f"{record.name} {record.version}: {record.config.method} {record.config.size}, "
        f"{found.agreement.frames:.1%} of frames agree, logits are off by {found.agreement.logit_error:.2%}"
    )


def _clips(path: Path, geometry: Geometry) -> list[np.ndarray]:
    """All recordings in windows as the service cuts them, without silent ones.

    Raises :class:`~adapters.errors.AudioError` for a file that is none, of a folder's those that look like audio.
    """
    from adapters.errors import DataError
    from adapters.windows import cut
    from app.audio.source import AudioSource

    files = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES) if path.is_dir() else [path]
    if not files or not path.exists():
        raise DataError(f"no recordings in {path} to measure on: give some with --audio")
    clips: list[np.ndarray] = []
    for file in files:
        with file.open("rb") as opened, AudioSource(opened, max_audio_s=float("inf")) as source:
            clips += [window.samples for window in cut(source, geometry) if not window.silent]
    return clips


_SUFFIXES = {".aac", ".flac", ".m4a", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm"}
