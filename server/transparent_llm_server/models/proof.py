"""A model proves itself before it is served: against plain Hugging Face, and against its own identities.

The reference is computed before TransformerLens touches the model. Two sentences of different length run as
one padded batch; only real positions are compared. Every tolerance is relative to the size of what is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from transparent_llm.description import ParityCheck
from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.bridged import BridgedModel
from transparent_llm_server.models.refusal import refusing
from transparent_llm_server.models.values import Values

LENGTHS = (12, 7)
"""Tokens of the two probe sentences."""

_PASSES = 2
"""Of the reference, of which the last counts: in one process of some hundred the comparison failed on a CPU by 1e-4,
with the same figures each time, and never after the first pass of a process. It looks as if vector functions that two
threads call first at the same time are not set up yet."""

RELATIVE_TOLERANCE = {torch.float64: 5e-5, torch.float32: 5e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Of the largest value compared."""

SMALLEST_SCALE = 1e-3
"""Where all values are smaller still, for example a branch of zeros, this stands for the largest."""


@dataclass(frozen=True)
class Reference:
    """What plain Hugging Face computed for the probe."""

    tokens: torch.Tensor
    mask: torch.Tensor
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]
    attentions: tuple[torch.Tensor | None, ...]


@torch.no_grad()
def reference(hf_model: Any, d_vocab: int, n_ctx: int, device: torch.device) -> Reference:
    """Run the probe through the unbridged model, whose input goes to this device.

    Raises:
        ModelRefusedError: it cannot be run.
    """
    lengths = [min(length, n_ctx) for length in LENGTHS]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, d_vocab, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    with refusing(lambda words: f"{type(hf_model).__name__} is not served: it cannot run: {words}"):
        for _ in range(_PASSES):
            output = hf_model(
                tokens.to(device),
                attention_mask=mask.to(device, torch.int64),
                output_hidden_states=True,
                output_attentions=True,
                use_cache=False,
            )
    attentions = tuple(getattr(output, "attentions", None) or ())
    return Reference(tokens, mask, output.logits, tuple(output.hidden_states), attentions)


def prove(model: BridgedModel, values: Values, expected: Reference) -> tuple[ParityCheck, ...]:
    """Compare the values of the probe and add them up; the results are what ServerInfo reports.

    Raises:
        ModelRefusedError: a difference over its tolerance; the message names it with both numbers.
    """
    worst: dict[str, ParityCheck] = {}
    for name, got, wanted in _pairs(model, values, expected):
        check = _compare(name, got, wanted, RELATIVE_TOLERANCE[model.dtype])
        if name not in worst or check.exceeds(worst[name]):
            worst[name] = check
    failed = [check for check in worst.values() if not check.passed]
    if failed:
        numbers = "; ".join(f"{c.name}: {c.max_abs_error:.2g} is over {c.tolerance:.2g}" for c in failed)
        raise ModelRefusedError(
            f"{model.architecture} under TransformerLens fails its checks and is not served: {numbers}",
            metadata={check.name: f"{check.max_abs_error:.6g}" for check in failed},
        )
    return tuple(worst.values())


def _compare(name: str, got: torch.Tensor, wanted: torch.Tensor, relative: float) -> ParityCheck:
    wanted = wanted.to(got.device)  # layers may lie on different ones
    error = (got.float() - wanted.float()).abs().max().item()
    return ParityCheck(name, error, relative * max(SMALLEST_SCALE, wanted.float().abs().max().item()))


_Pairs = Iterator[tuple[str, torch.Tensor, torch.Tensor]]


def _pairs(model: BridgedModel, values: Values, expected: Reference) -> _Pairs:
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
    yield "unembed_of_last_residual", model.unembed(last[0, 0], normalize=True), values.logits().tensor()[0, 0]


def _attention_pairs(model: BridgedModel, values: Values, expected: Reference, layer: int) -> _Pairs:
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


def _neuron_pairs(values: Values, expected: Reference, layer: int) -> _Pairs:
    for row, length in enumerate(expected.mask.sum(dim=1).tolist()):
        for pos in {0, length - 1}:
            summed = values.decomposed_ffn_out(row, layer, pos).tensor().float().sum(dim=0)
            bias = torch.as_tensor(values.ffn_bias(row, layer, pos)).to(summed)
            yield "ffn_sum", summed + bias, values.ffn_out(layer).tensor()[row, pos]
