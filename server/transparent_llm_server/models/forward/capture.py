"""What one forward pass leaves behind: the tensors from which every value of the contract is derived."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True)
class LayerCapture:
    """One block's tensors. None where the architecture has no such thing."""

    residual_in: torch.Tensor
    """The residual stream as it enters the block [batch pos d_model]."""

    attn_out: torch.Tensor | None
    """What attention added to the residual stream [batch pos d_model]."""

    ffn_out: torch.Tensor | None
    """What the feed-forward part added [batch pos d_model]."""

    pattern: torch.Tensor | None
    """Attention probabilities [batch head query_pos key_pos]."""

    value: torch.Tensor | None
    """Value vectors before they are shared among query heads [batch pos kv_head d_head]."""

    attn_scale: torch.Tensor | None
    """What the norm after attention divided by [batch pos 1]."""

    ffn_scale: torch.Tensor | None
    """What the norm after the feed-forward part divided by [batch pos 1]."""

    neurons: torch.Tensor | None
    """Activations [batch pos d_ffn]; in a mixture of experts the input of the layer [batch pos d_model]."""

    z: torch.Tensor | None = None
    """What heads mixed of the values [batch pos head d_head], in runs where that was edited."""

    z_is_edited: torch.Tensor | None = None
    """Where z was edited [batch pos head]; elsewhere it is pattern times value."""

    z_factor: torch.Tensor | None = None
    """What z was scaled by where it was edited [batch pos head]; NaN where another edit made it."""

    expert_activations: torch.Tensor | None = None
    """Of all neurons of experts at the places where some were edited [n d_ffn]."""

    expert_index: torch.Tensor | None = None
    """Which of these a position has [batch pos]; -1: none was edited there."""

    query: torch.Tensor | None = None
    """Queries as keys are multiplied with them [batch pos head d], where they were edited."""

    key: torch.Tensor | None = None
    """Keys [batch pos kv_head d], where they were edited."""

    residual_mid: torch.Tensor | None = None
    """The stream between attention and feed-forward part [batch pos d_model], where that was edited; else it is
    residual_in plus attn_out."""

    attn_norm_scale: torch.Tensor | None = None
    """What the norm before attention divided by, where that was frozen [batch pos 1]."""

    ffn_norm_scale: torch.Tensor | None = None
    """The same of the norm before the feed-forward part."""


@dataclass(frozen=True)
class Capture:
    """One batch's tensors. Nobody writes to them, so that many readers can share them."""

    tokens: torch.Tensor
    """[batch pos], on the CPU."""

    mask: torch.Tensor
    """[batch pos], True where there is a token, on the CPU."""

    layers: tuple[LayerCapture, ...]
    residual_out: torch.Tensor
    """The stream as it leaves the last block [batch pos d_model]."""

    generation: int = 0
    """Of the weights that made it: see `EditDetector`."""

    final_scale: torch.Tensor | None = None
    """What the final norm divides by, where that was frozen [batch pos 1]."""

    @classmethod
    def of_passes(
        cls, tokens: torch.Tensor, mask: torch.Tensor, passes: Sequence[tuple[Sequence[int], Capture]]
    ) -> Capture:
        """A batch whose rows ran in several passes: (rows of the batch, what they left). Padding is filled up."""
        batch, n_pos = tokens.shape

        def whole(name: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
            filled = _filled(name, parts[0], batch, n_pos)
            for (rows, _), part in zip(passes, parts, strict=True):
                for row, values in zip(rows, part, strict=True):
                    filled[row][tuple(map(slice, values.shape))] = values
            return filled

        layers = []
        for found in zip(*(left.layers for _, left in passes), strict=True):
            held = {field.name: [getattr(layer, field.name) for layer in found] for field in fields(LayerCapture)}
            merged = {name: whole(name, parts) for name, parts in held.items() if parts[0] is not None}
            layers.append(replace(found[0], **merged))
        residual_out = whole("residual_out", [left.residual_out for _, left in passes])
        scales = [left.final_scale for _, left in passes if left.final_scale is not None]
        final_scale = whole("final_scale", scales) if scales else None
        return cls(tokens, mask, tuple(layers), residual_out, passes[0][1].generation, final_scale)

    def not_finite(self) -> dict[int, int]:
        """Row -> the layer after which its stream is first not finite at a token; -1: it is not from the beginning on.

        Whatever is infinite or NaN in a layer stays so in the stream: the last one tells whether to look for more.
        """
        if self._rows_not_finite(self.residual_out).numel() == 0:
            return {}
        found: dict[int, int] = {}
        for index, stream in enumerate([*(layer.residual_in for layer in self.layers), self.residual_out]):
            for row in self._rows_not_finite(stream).tolist():
                found.setdefault(row, index - 1)
        return found

    def _rows_not_finite(self, stream: torch.Tensor) -> torch.Tensor:
        wrong = ~torch.isfinite(stream).all(dim=2).cpu() & self.mask
        return wrong.any(dim=1).nonzero().flatten()

    @property
    def nbytes(self) -> int:
        """Bytes that this run keeps alive, storage that several tensors share counted once."""
        return sum(self.storages.values())

    @property
    def storages(self) -> dict[Hashable, int]:
        """What it keeps alive, and the bytes of each: several tensors, also of two runs, can share one."""
        storages = [(str(tensor.device), tensor.untyped_storage()) for tensor in self._tensors()]
        return {(device, storage.data_ptr()): storage.nbytes() for device, storage in storages}

    def output_at(self, rows: Sequence[int], positions: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The stream as it leaves the last block at some places [n d_model], and what the final norm divides it by
        [n 1], where that was frozen: all that the logits there are made of."""
        at = list(rows), list(positions)
        return self.residual_out[at], None if self.final_scale is None else self.final_scale[at]

    def sharing(self, other: Capture, fields_of_layers: Sequence[Collection[str]]) -> Capture:
        """The same values; of some fields of the first layers they are another capture's tensors, where these have the
        same bits, and lie in memory once."""
        layers = [_shared(*found) for found in zip(self.layers, other.layers, fields_of_layers, strict=False)]
        return replace(self, layers=(*layers, *self.layers[len(layers) :]))

    @property
    def bytes_per_position(self) -> int:
        """What every position of every row adds to `nbytes`, attention patterns aside."""
        return (self.nbytes - self._pattern_bytes) // self.tokens.numel()

    @property
    def bytes_per_position_pair(self) -> int:
        """What every pair of positions of a row adds: the attention patterns."""
        batch, n_pos = self.tokens.shape
        return self._pattern_bytes // (batch * n_pos * n_pos)

    def rows(self, first: int, tokens: torch.Tensor, mask: torch.Tensor) -> Capture:
        """A part of a batch as a capture of its own: `tokens` are those of the rows from `first` on, less padding."""
        last, n_pos = first + tokens.shape[0], tokens.shape[1]
        layers = []
        for layer in self.layers:
            held = {field.name: getattr(layer, field.name) for field in fields(layer)}
            part = {
                name: _of_positions(name, tensor, first, last, n_pos)
                for name, tensor in held.items()
                if tensor is not None
            }
            layers.append(replace(layer, **part))
        residual_out = self.residual_out[first:last, :n_pos].clone()
        return Capture(tokens, mask, tuple(layers), residual_out, self.generation)

    @property
    def _pattern_bytes(self) -> int:
        return sum(layer.pattern.nbytes for layer in self.layers if layer.pattern is not None)

    def _tensors(self) -> Iterator[torch.Tensor]:
        yield from (self.tokens, self.mask, self.residual_out)
        for layer in self.layers:
            held = (getattr(layer, field.name) for field in fields(layer))
            yield from (tensor for tensor in held if tensor is not None)


def _shared(layer: LayerCapture, other: LayerCapture, names: Collection[str]) -> LayerCapture:
    pairs = {name: (getattr(layer, name), getattr(other, name)) for name in names}
    return replace(layer, **{name: theirs for name, (mine, theirs) in pairs.items() if _are_same(mine, theirs)})


def _are_same(tensor: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if tensor is None or other is None or tensor.device != other.device or tensor.dtype != other.dtype:
        return False
    return torch.equal(tensor, other)


def _of_positions(name: str, tensor: torch.Tensor, first: int, last: int, n_pos: int) -> torch.Tensor:
    """Rows and real positions, in memory of their own: a view would keep the whole batch alive."""
    if name == "pattern":
        return tensor[first:last, :, :n_pos, :n_pos].clone()
    return tensor[first:last, :n_pos].clone()


def _filled(name: str, like: torch.Tensor, batch: int, n_pos: int) -> torch.Tensor:
    """Room for a whole batch of such values, with what padding reads as: 1 where something is divided by it."""
    axes = (batch, like.shape[1], n_pos, n_pos) if name == "pattern" else (batch, n_pos, *like.shape[2:])
    return like.new_full(axes, 1.0 if name.endswith(("_scale", "_factor")) else 0.0)
