"""`tongues parameters`: what an adapter would cost on a backbone, before anything is trained."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def parameters_command(
    backbone: Annotated[str, typer.Option(help="A folder, or a known architecture such as wav2vec2-base.")],
    bottleneck: Annotated[int, typer.Option(min=1, help="Width of the bottleneck.")] = 256,
    layers: Annotated[
        int | None, typer.Option(min=0, help="Adapted layers from the top; the top half, if left out.")
    ] = None,
    norms: Annotated[str, typer.Option(help="Trained layer norms: none, adapted or all.")] = "adapted",
    vocab_size: Annotated[int, typer.Option(min=2, help="Tokens of the CTC head.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Parameters that training an adapter touches, and their share of all, the adapter included."""
    from typing import cast

    from rich.console import Console
    from rich.table import Table

    from adapters.architectures import count_parameters, find_architecture
    from adapters.config import AdapterConfig, Norms, top_layers
    from adapters.errors import BackboneError
    from app.commands.console import errors_told

    with errors_told():
        config = find_architecture(backbone)
        total: int = config.num_hidden_layers
        if norms not in ("none", "adapted", "all"):
            raise BackboneError(f"--norms takes none, adapted or all, not {norms!r}")
        if layers is not None and layers > total:
            raise BackboneError(f"--layers {layers}: {backbone} has {total} layers")
        adapted = top_layers(total, total // 2 if layers is None else layers)
        counts = count_parameters(
            config, AdapterConfig("bottleneck", bottleneck, adapted, cast(Norms, norms), vocab_size)
        )
    if as_json:
        typer.echo(json.dumps(counts.to_dict()))
        return
    table = Table(title=f"{backbone}, bottleneck {bottleneck}, {len(adapted)} of {total} layers, norms {norms}")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    for part, count in (
        ("backbone", counts.backbone),
        ("bottlenecks", counts.adapters),
        ("layer norms", counts.norms),
        ("head", counts.head),
        ("trained", counts.trainable),
    ):
        table.add_row(part, f"{count:,}")
    table.add_row("trained, of all", f"{counts.percent:.3f} %")
    Console().print(table)
