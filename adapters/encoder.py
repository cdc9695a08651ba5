"""Hidden states through a frozen backbone whose rows wear adapters.

transformers' modules hold the weights, under their own names; the loop over the layers is ours, since theirs cannot
take a different adapter for every row. It takes what the rows wear as one explicit argument and asks it at each place
where an adapter may act. Below the lowest adapted layer lies the *trunk*, the same for every language; above it the
*top*. ``encoder(audio, worn)`` is ``top(trunk(audio, worn.lowest_layer), worn)``.

Sources: wav2vec 2.0 (Baevski et al. 2020), HuBERT (Hsu et al. 2021); adapter places from Thomas, Kessler, Karout
(2022), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.config import BackboneSize, Place
from adapters.frontend import FrontEnd, Geometry, Lengths, PaddedAudio, indices, valid_mask
from adapters.fused import project
from adapters.pieces import front
from adapters.shapes import Norm

if TYPE_CHECKING:  # transformers' models take seconds to import, and only who loads one needs them
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    BackboneConfig = Wav2Vec2Config | HubertConfig
    BackboneModel = Wav2Vec2Model | HubertModel


def size_of(config: BackboneConfig) -> BackboneSize:
    """What decides the shapes of adapters on a backbone of this configuration."""
    return BackboneSize(config.hidden_size, config.num_hidden_layers, config.intermediate_size)


class Worn(Protocol):
    """What the rows of a batch wear. :class:`~adapters.adapter.Adapter` is one adapter for all rows, with trainable
    parameters; :class:`~adapters.batch.BatchAdapters` is one adapter a row, out of the bank. ``x`` is (B, T, D)."""

    @property
    def lowest_layer(self) -> int:
        """The lowest layer that anything worn changes; all below may be shared."""

    def norm(self, layer: int, which: Norm, base: nn.LayerNorm, x: Tensor) -> Tensor:
        """The layer norm ``which`` of ``layer``: the backbone's own (``base``) or the adapter's trained copy."""

    def adapt(self, layer: int, place: Place, y: Tensor, x: Tensor) -> Tensor:
        """What the adapter at ``place`` makes of its output y, (B, T, D); x is what went in. Of a sublayer that is
        before its residual addition, of a projection before it is split into heads, of a layer after all of it."""

    def head(self, x: Tensor) -> Tensor:
        """(B, T, D) -> logits (B, T, V); columns beyond a row's own vocabulary are -inf."""


@dataclass(frozen=True)
class Frames:
    """Hidden states on their way up: ``hidden`` (B, T, D), each row's valid frames, the next layer to run."""

    hidden: Tensor
    lengths: Lengths
    layer: int

    def rows(self, index: Sequence[int] | Tensor) -> Frames:
        """The rows ``index``, repeats allowed: one trunk row becomes one row for each candidate language."""
        chosen = index if isinstance(index, Tensor) else indices(index, self.hidden.device)
        if isinstance(self.lengths, Tensor):
            lengths: Lengths = self.lengths.index_select(0, chosen)
        else:
            lengths = tuple(self.lengths[i] for i in index)
        return replace(self, hidden=self.hidden.index_select(0, chosen), lengths=lengths)

    def row(self, index: int) -> Frames:
        """One row by itself, (1, T', D) without padding, in memory of its own; where the host knows its length."""
        assert isinstance(self.lengths, tuple)
        length = self.lengths[index]
        return replace(self, hidden=self.hidden[index : index + 1, :length].clone(), lengths=(length,))

    @classmethod
    def stack(cls, rows: Sequence[Frames]) -> Frames:
        """Single rows at the same layer, side by side and padded with zeros."""
        hidden = nn.utils.rnn.pad_sequence([row.hidden[0] for row in rows], batch_first=True)
        return cls(hidden, tuple(int(row.lengths[0]) for row in rows), rows[0].layer)


class Encoder(nn.Module):
    """A wav2vec 2.0, XLS-R, MMS or HuBERT backbone, pre-norm or post-norm, with either front end.

    Row i of a padded batch equals the same clip alone (1e-4 absolute and relative in float32).
    """

    def __init__(self, model: BackboneModel) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.config: BackboneConfig = config
        self.geometry = Geometry(tuple(config.conv_kernel), tuple(config.conv_stride))
        self.frontend = FrontEnd(model.feature_extractor, model.feature_projection, self.geometry)
        self.layer_count: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        self.size = size_of(config)
        self.pre_norm: bool = config.do_stable_layer_norm
        self.bare: Worn = _NOTHING

    def forward(self, audio: PaddedAudio, worn: Worn) -> Tensor:
        """audio (B, N), what each row wears -> logits (B, T, V)."""
        return self.top(self.trunk(audio, worn.lowest_layer), worn)

    def trunk(self, audio: PaddedAudio, upto: int, masked: Tensor | None = None) -> Frames:
        """The front end and the layers below ``upto``, which no row's adapter may change.

        ``masked`` (B, T) bool: frames to replace by the backbone's mask vector (training only).
        """
        if not 0 <= upto <= self.layer_count:
            raise ValueError(f"a trunk of {upto} layers out of {self.layer_count}")
        return self._run(self.begin(*front(self.frontend, audio), masked), upto, _NOTHING)

    def begin(self, x: Tensor, lengths: Lengths, masked: Tensor | None = None) -> Frames:
        """What comes out of the front end, (B, T, D), with positions added: what goes into the lowest layer."""
        if masked is not None:
            x = torch.where(masked[..., None], self.model.masked_spec_embed.to(x.dtype), x)
        valid = valid_mask(lengths, x.shape[1], x.device)
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0)  # the positional convolution must see what a lone clip ends with
        encoder = self.model.encoder
        x = x + self._positions(x)
        if not self.pre_norm:
            x = encoder.layer_norm(x)
        x = self._drop(x, self.config.hidden_dropout)
        return Frames(x, lengths, 0)

    def further(self, frames: Frames, upto: int) -> Frames:
        """A trunk of ``frames.layer`` layers, run on to ``upto`` of them."""
        if not frames.layer <= upto <= self.layer_count:
            raise ValueError(f"a trunk of {frames.layer} layers to {upto} out of {self.layer_count}")
        return self._run(frames, upto, _NOTHING)

    def top(self, frames: Frames, worn: Worn) -> Tensor:
        """The layers from ``frames.layer`` up and the heads -> logits (B, T, V)."""
        if worn.lowest_layer < frames.layer:
            raise ValueError(f"layer {worn.lowest_layer} is adapted, but the trunk already ran {frames.layer} layers")
        return worn.head(self.hidden(frames, worn))

    def hidden(self, frames: Frames, worn: Worn) -> Tensor:
        """The layers from ``frames.layer`` up, without a head -> (B, T, D)."""
        x = self._run(frames, self.layer_count, worn).hidden
        if self.pre_norm:
            x = self.model.encoder.layer_norm(x)
        return self._drop(x, getattr(self.config, "final_dropout", 0.0))

    def _run(self, frames: Frames, upto: int, worn: Worn) -> Frames:
        x = frames.hidden
        valid = valid_mask(frames.lengths, x.shape[1], x.device)
        attend = None if valid is None else valid[:, None, None, :]  # (B, 1, 1, T)
        run = self._pre_norm_layer if self.pre_norm else self._post_norm_layer
        for index in range(frames.layer, upto):
            x = run(index, x, attend, worn)
        return Frames(x, frames.lengths, upto)

    def _pre_norm_layer(self, index: int, x: Tensor, attend: Tensor | None, worn: Worn) -> Tensor:
        layer: Any = self.model.encoder.layers[index]
        normed = worn.norm(index, "layer_norm", layer.layer_norm, x)
        x = x + worn.adapt(index, "attention", self._attention(index, normed, attend, worn), normed)
        normed = worn.norm(index, "final_layer_norm", layer.final_layer_norm, x)
        x = x + worn.adapt(index, "feed_forward", self._feed_forward(index, normed, worn), normed)
        return worn.adapt(index, "layer", x, x)

    def _post_norm_layer(self, index: int, x: Tensor, attend: Tensor | None, worn: Worn) -> Tensor:
        layer: Any = self.model.encoder.layers[index]
        x = x + worn.adapt(index, "attention", self._attention(index, x, attend, worn), x)
        x = worn.norm(index, "layer_norm", layer.layer_norm, x)
        x = x + worn.adapt(index, "feed_forward", self._feed_forward(index, x, worn), x)
        x = worn.norm(index, "final_layer_norm", layer.final_layer_norm, x)
        return worn.adapt(index, "layer", x, x)

    def _feed_forward(self, index: int, x: Tensor, worn: Worn) -> Tensor:
        layer: Any = self.model.encoder.layers[index]
        inside = layer.feed_forward
        y = worn.adapt(index, "intermediate_dense", inside.intermediate_dense(x), x)  # (B, T, F)
        y = self._drop(inside.intermediate_act_fn(y), self.config.activation_dropout)
        y = worn.adapt(index, "output_dense", inside.output_dense(y), y)
        return self._drop(y, self.config.hidden_dropout)

    def _attention(self, index: int, x: Tensor, attend: Tensor | None, worn: Worn) -> Tensor:
        layer: Any = self.model.encoder.layers[index]
        attention = layer.attention
        batch, width, size = x.shape
        heads: int = attention.num_heads

        def split(y: Tensor) -> Tensor:
            return y.view(batch, width, heads, size // heads).transpose(1, 2)  # (B, H, T, D/H)

        q, k, v = project(attention, x)  # (B, T, D) each
        q, k = worn.adapt(index, "q_proj", q, x), worn.adapt(index, "k_proj", k, x)
        v = worn.adapt(index, "v_proj", v, x)
        y = self._attend(split(q), split(k), split(v), attend).transpose(1, 2).reshape(batch, width, size)
        y = worn.adapt(index, "out_proj", attention.out_proj(y), y)
        return self._drop(y, self.config.hidden_dropout)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, attend: Tensor | None) -> Tensor:
        """(B, H, T, D/H) three times -> the same shape; the fused kernel, but for its slow backward on a CPU."""
        dropout = self.config.attention_dropout if self.training else 0.0
        if q.is_cuda or not q.requires_grad:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout)
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))  # (B, H, T, T)
        if attend is not None:
            scores = scores + torch.zeros_like(attend, dtype=scores.dtype).masked_fill(~attend, -1e9)
        return torch.matmul(self._drop(scores.softmax(dim=-1), dropout).to(v.dtype), v)

    def _positions(self, x: Tensor) -> Tensor:
        embed: Any = self.model.encoder.pos_conv_embed
        width = x.shape[1]
        y: Tensor = embed.conv(x.transpose(1, 2))[:, :, :width]  # an even kernel leaves one frame too many
        y = embed.activation(y)
        return y.transpose(1, 2)

    def _drop(self, x: Tensor, probability: float) -> Tensor:
        return F.dropout(x, probability, training=self.training) if probability else x


class _Nothing:
    """Bare rows: the layers of the trunk."""

    lowest_layer = 0

    def norm(self, layer: int, which: Norm, base: nn.LayerNorm, x: Tensor) -> Tensor:
        return base(x)  # type: ignore[no-any-return]

    def adapt(self, layer: int, place: Place, y: Tensor, x: Tensor) -> Tensor:
        return y

    def head(self, x: Tensor) -> Tensor:
        return x


_NOTHING: Worn = _Nothing()
