"""The mean of several backbones that one start led to, trained on other data or in another order: it hears better than
each of them, and costs what one costs (Wortsman et al. 2022, Model soups)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters.backbone import load_model
from adapters.encoder import Encoder
from adapters.errors import BackboneError
from adapters.training.backbone_folder import read_head, read_record, write_backbone
from adapters.vocab import Vocab


def average(folders: Sequence[Path], out: Path) -> None:
    """Write to ``out`` the mean of the backbones in ``folders`` and of their CTC heads. The row of a letter that not
    all heads know is the mean over those that do.

    Raises :class:`~adapters.errors.BackboneError` for fewer than two folders, for one without a head, for weights of
    another shape than those of the first, and for backbones that do not say that one start led to them all: units of
    strangers do not correspond, and their mean is noise.
    """
    if len(folders) < 2:
        raise BackboneError(f"the mean of {len(folders)} backbone: give two folders or more")
    records = [read_record(folder) for folder in folders]
    if not set.intersection(*(set(_lineage(record)) for record in records)):
        said = "no backbone that all of them started from"
        raise BackboneError(
            f"{said}, by their pretraining.json; only runs with the same --start have a mean that hears"
        )
    model = load_model(folders[0])
    others = [load_model(folder).state_dict() for folder in folders[1:]]
    mean = {name: tensor.float() / len(folders) for name, tensor in model.state_dict().items()}
    for folder, state in zip(folders[1:], others, strict=True):
        if {name: tensor.shape for name, tensor in state.items()} != {name: t.shape for name, t in mean.items()}:
            raise BackboneError(f"{folder}: not of the shape of {folders[0]}; only backbones of one shape have a mean")
        for name, tensor in state.items():
            mean[name] += tensor.float() / len(folders)
    model.load_state_dict(mean)
    write_backbone(out, Encoder(model), _mean_head(folders), {"mean_of": records})


def _lineage(record: Mapping[str, Any]) -> Iterator[str]:
    """Fingerprints of a backbone and of all that it comes from."""
    if "fingerprint" in record:
        yield record["fingerprint"]
    for parent in (record.get("started_from"), *record.get("mean_of", ())):
        if parent is not None:
            yield from _lineage(parent)


@torch.no_grad()
def _mean_head(folders: Sequence[Path]) -> tuple[nn.Linear, Vocab]:
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for head, vocab in map(read_head, folders):
        for token, weight, bias in zip(vocab.tokens, head["weight"].float(), head["bias"].float(), strict=True):
            rows.setdefault(token, []).append((weight, bias))
    linear = nn.Linear(len(next(iter(rows.values()))[0][0]), len(rows))
    for row, known in enumerate(rows.values()):
        linear.weight[row] = torch.stack([weight for weight, _ in known]).mean(dim=0)
        linear.bias[row] = torch.stack([bias for _, bias in known]).mean()
    return linear, Vocab(tuple(rows))
