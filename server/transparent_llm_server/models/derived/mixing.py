"""What heads mixed of the values of their sources, and experts' neurons were, in runs in which these were edited."""

from __future__ import annotations

import torch

from transparent_llm_server.models.forward.capture import LayerCapture
from transparent_llm_server.models.values.value import Computed, Value


def is_edited(capture: LayerCapture, *place: int) -> bool:
    """Whether what heads mixed was edited in a row, at a position of it, or of a head there."""
    return capture.z_is_edited is not None and bool(capture.z_is_edited[place].any())


def weights(capture: LayerCapture, row: int, targets: slice = slice(None)) -> torch.Tensor | None:
    """Of values [head target source], in a row: the pattern, times what an edited head was scaled by. None where one
    was edited in another way, so that it is no sum over sources."""
    assert capture.pattern is not None
    pattern = capture.pattern[row, :, targets]
    if not is_edited(capture, row):
        return pattern
    assert capture.z_factor is not None  # where heads are edited
    factor = capture.z_factor[row, targets]
    if factor.isnan().any():
        return None
    return (pattern * factor.T[:, :, None]).to(pattern.dtype)


def edited_activations(capture: LayerCapture, row: int, pos: int) -> torch.Tensor | None:
    """Activations of the neurons of experts at a place where some were edited [d_ffn]; None where none was."""
    if capture.expert_index is None or capture.expert_activations is None:
        return None
    n = int(capture.expert_index[row, pos])
    return None if n < 0 else capture.expert_activations[n]


def at_position(gain: Value | None, pos: int) -> Value | None:
    """What lies between a branch and the stream, at one position."""
    if gain is None or not gain.shape:
        return gain
    row = gain.select([slice(pos, pos + 1), slice(0, gain.shape[1])])
    return Computed(row.shape[1:], row.dtype, lambda: row.tensor()[0], is_quick=True)


def times(tensor: torch.Tensor, gain: Value | None) -> torch.Tensor:
    """A vector after what lies between its branch and the stream."""
    return tensor if gain is None else tensor * gain.tensor()
