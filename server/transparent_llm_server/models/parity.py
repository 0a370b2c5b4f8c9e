"""What a model is checked for before it is served: parity with plain Hugging Face, and its own identities.

The reference is computed before TransformerLens touches the model. Sentences of different length run as one padded
batch, or in as many passes as the model needs so that none changes another's values; that is measured too. Only real
positions are compared. Every tolerance is relative to the size of what is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import torch

from transparent_llm.description import ParityCheck
from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.derived.unembedded import Unembedded
from transparent_llm_server.models.forward.batch import Batch
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.regimes import Regimes
from transparent_llm_server.models.forward.tolerance import allowed_error, largest_error
from transparent_llm_server.models.loading.refusal import refusing

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput

LENGTHS = (12, 7)
"""Tokens of two of the probe's sentences. A third one is longer than a border between regimes, where there is one."""

_LONGEST = 129
"""Tokens of such a third sentence, at the most: beyond a border of thousands only the configuration tells."""

_PASSES = 2
"""Of the reference, of which the last counts: in one process of some hundred the comparison failed on a CPU by 1e-4,
with the same figures each time, and never after the first pass of a process. It looks as if vector functions that two
threads call first at the same time are not set up yet."""


@dataclass(frozen=True)
class Reference:
    """What plain Hugging Face computed for the probe."""

    tokens: torch.Tensor
    mask: torch.Tensor
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]
    attentions: tuple[torch.Tensor | None, ...]
    regimes: Regimes
    """Which rows may share a pass: what the configuration says, or none, if one was seen to change another's values."""

    independence: tuple[ParityCheck, ...] = ()
    """How far a row beside a longer one was from the row alone, where rows share passes."""


def reference(hf_model: PreTrainedModel, d_vocab: int, n_ctx: int, device: torch.device) -> Reference:
    """Run the probe through the unbridged model, whose input goes to this device.

    Raises:
        ModelRefusedError: it cannot be run.
    """
    regimes = Regimes.of(hf_model.config.get_text_config())
    probe = _probe(d_vocab, n_ctx, regimes)
    for _ in range(_PASSES):
        found = _reference(hf_model, probe, regimes, device)
    if all(len(rows) == 1 for rows, _ in probe.split(regimes)):
        return found
    check = _independence(found, _reference(hf_model, probe, regimes.each_alone("to compare"), device))
    if check.passed:
        return replace(found, independence=(check,))
    why = f"beside a longer one a row was measured to differ by {check.max_abs_error:.2g}, over {check.tolerance:.2g}"
    return _reference(hf_model, probe, regimes.each_alone(why), device)


def _probe(d_vocab: int, n_ctx: int, regimes: Regimes) -> Batch:
    crossing = [border + 1 for border in regimes.borders if border < min(_LONGEST, n_ctx)]
    lengths = [min(length, n_ctx) for length in (*LENGTHS, *crossing)]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, d_vocab, (len(lengths), max(lengths)), generator=generator)
    return Batch(tokens, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def _reference(hf_model: PreTrainedModel, probe: Batch, regimes: Regimes, device: torch.device) -> Reference:
    parts = probe.split(regimes)
    outputs = [_output(hf_model, part, device) for _, part in parts]
    rows, n_pos = [rows for rows, _ in parts], probe.tokens.shape[1]

    def whole(kept: Sequence[Sequence[torch.Tensor | None]], *axes: int) -> tuple[torch.Tensor | None, ...]:
        """Layer by layer, of all rows; `axes` are those of positions."""
        return tuple(_merged(rows, found, n_pos, axes) for found in zip(*kept, strict=True))

    (logits,) = whole([(output.logits,) for output in outputs], 1)
    hidden_states = whole([output.hidden_states for output in outputs], 1)
    attentions = whole([tuple(getattr(output, "attentions", None) or ()) for output in outputs], 2, 3)
    return Reference(probe.tokens, probe.mask, logits, hidden_states, attentions, regimes)  # type: ignore[arg-type]


def _output(hf_model: PreTrainedModel, batch: Batch, device: torch.device) -> CausalLMOutput:
    with refusing(lambda words: f"{type(hf_model).__name__} is not served: it cannot run: {words}"):
        return hf_model(
            batch.tokens.to(device),
            attention_mask=batch.mask.to(device, torch.int64),
            output_hidden_states=True,
            output_attentions=True,
            use_cache=False,
        )


def _merged(
    rows: Sequence[Sequence[int]], parts: Sequence[torch.Tensor | None], n_pos: int, axes: Sequence[int]
) -> torch.Tensor | None:
    """One tensor of what several passes gave for their rows."""
    first = parts[0]
    if first is None or len(parts) == 1:
        return first
    shape = [n_pos if axis in axes else size for axis, size in enumerate(first.shape)]
    merged = first.new_zeros(sum(map(len, rows)), *shape[1:])
    for numbers, part in zip(rows, parts, strict=True):
        for row, values in zip(numbers, part if part is not None else (), strict=True):
            merged[row][tuple(map(slice, values.shape))] = values.to(merged.device)
    return merged


def _independence(together: Reference, alone: Reference) -> ParityCheck:
    """How far rows that shared a pass are from the same rows alone.

    In a narrow type it is the median of the positions that counts: a router whose choice hangs on the last bit chooses
    otherwise at one position or another, whereas a model that looks at the longest row changes nearly all of them.
    """
    checks = []
    for got, wanted in zip(
        (together.logits, *together.hidden_states), (alone.logits, *alone.hidden_states), strict=True
    ):
        got, wanted = got[together.mask].float(), wanted[together.mask].float()
        tolerance = allowed_error(wanted, together.logits.dtype)
        errors = (got - wanted).abs().amax(dim=1)
        is_narrow = together.logits.dtype.itemsize < 4
        error = errors.median() if is_narrow else errors.max()
        checks.append(ParityCheck("row_vs_row_alone", error.item(), tolerance))
    return reduce(lambda worst, check: check if check.exceeds(worst) else worst, checks)


def check_parity(model: BridgedModel, values: RunValues, expected: Reference) -> tuple[ParityCheck, ...]:
    """Compare the values of the probe and add them up; the results are what ServerInfo reports.

    Raises:
        ModelRefusedError: a difference over its tolerance; the message names it with both numbers.
    """
    worst: dict[str, ParityCheck] = {}
    for name, got, wanted in _pairs(model, values, expected):
        check = _compare(name, got, wanted, model.dtype)
        if name not in worst or check.exceeds(worst[name]):
            worst[name] = check
    failed = [check for check in worst.values() if not check.passed]
    if failed:
        numbers = "; ".join(f"{c.name}: {c.max_abs_error:.2g} is over {c.tolerance:.2g}" for c in failed)
        raise ModelRefusedError(
            f"{model.architecture} under TransformerLens fails its checks and is not served: {numbers}",
            metadata={check.name: f"{check.max_abs_error:.6g}" for check in failed},
        )
    return (*worst.values(), *expected.independence)


def _compare(name: str, got: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> ParityCheck:
    return ParityCheck(name, largest_error(got, wanted), allowed_error(wanted, dtype))


_Pairs = Iterator[tuple[str, torch.Tensor, torch.Tensor]]


def _pairs(model: BridgedModel, values: RunValues, expected: Reference) -> _Pairs:
    """(check, got, wanted), real positions only."""
    real = expected.mask
    yield "logits_vs_huggingface", values.logits().tensor()[real], expected.logits[real]
    for index, layer in enumerate(model.layers):
        yield "residual_vs_huggingface", values.residual_in(index).tensor()[real], expected.hidden_states[index][real]
        if layer.has_heads:
            yield from _attention_pairs(model, values, expected, index)
        if layer.neurons is not None:
            yield from _neuron_pairs(values, expected, index)
        if {"attn_out", "ffn_out"} <= layer.hooks.keys():
            total = values.residual_after_attn(index).tensor().float() + values.ffn_out(index).tensor().float()
            yield "residual_sum", total[real], values.residual_out(index).tensor()[real]
    last = values.residual_out(len(model.layers) - 1).tensor()
    scores = Unembedded(model, last[0, 0], normalize=True).tensor()
    yield "unembed_of_last_residual", scores, values.logits().tensor()[0, 0]


def _attention_pairs(model: BridgedModel, values: RunValues, expected: Reference, layer: int) -> _Pairs:
    for row, n in enumerate(expected.mask.sum(dim=1).tolist()):
        complete = len(expected.attentions) == len(model.layers)  # hybrids list their attention layers only
        weights = expected.attentions[layer] if complete else None
        if weights is not None and weights.shape[1] == model.n_heads:  # some families return none
            got = torch.stack([values.attention_matrix(row, layer, head).tensor() for head in range(model.n_heads)])
            yield "attention_vs_huggingface", got[:, :n, :n], weights[row, :, :n, :n]
        summed = values.decomposed_attn(row, layer).tensor().float().sum(dim=(1, 2))
        whole = torch.stack([values.attention_output(row, layer, pos).tensor() for pos in range(n)])
        bias = torch.stack(
            [torch.as_tensor(values.attention_bias(row, layer, pos)).expand_as(whole[0]) for pos in range(n)]
        )
        yield "attention_sum", summed[:n] + bias.to(summed), whole


def _neuron_pairs(values: RunValues, expected: Reference, layer: int) -> _Pairs:
    for row, length in enumerate(expected.mask.sum(dim=1).tolist()):
        for pos in {0, length - 1}:
            summed = values.decomposed_ffn_out(row, layer, pos).tensor().float().sum(dim=0)
            bias = torch.as_tensor(values.ffn_bias(row, layer, pos)).to(summed)
            yield "ffn_sum", summed + bias, values.ffn_out(layer).tensor()[row, pos]
