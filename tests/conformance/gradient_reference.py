"""Gradients by autograd of plain Hugging Face, row by row: of what a module of a GPT-2 gives or is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Fields = dict[str, Any]
Parts = dict[str, Tensor]
_FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradient": lambda grad, _: grad,
    "times_activation": lambda grad, value: (grad * value).sum(dim=-1),
    "norm": lambda grad, _: grad.norm(dim=-1),
}
_MEASURES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "logit": lambda logits, token: logits[token],
    "logprob": lambda logits, token: logits.log_softmax(dim=-1)[token],
    "prob": lambda logits, token: logits.softmax(dim=-1)[token],
    "entropy": lambda logits, _: -(logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(),
}


def has_reference(step: Fields) -> bool:
    """Whether autograd of plain modules can answer it: no constants, no path, no other run, of streams and branches."""
    return (
        not {"frozen", "path"} & step.keys()
        and step["metric"]["measure"] in _MEASURES
        and all(each["site"][0] in _PLACES and each["form"] in _FORMS for each in step["sites"])
    )


def parts(model: PreTrainedModel, rows: list[list[int]], step: Fields) -> Parts:
    """The tensors of an answer by their names; 0 at padding."""
    chosen = [rows[row] for row in step.get("rows", range(len(rows)))]
    n_pos = max(map(len, chosen))
    found: dict[str, list[Tensor]] = {}
    for number, row in enumerate(chosen):
        for name, tensor in _of_row(model, row, number, step).items():
            padding = [0, 0] * (tensor.ndim - 1) + [0, n_pos - len(row)]
            found.setdefault(name, []).append(nn.functional.pad(tensor, padding) if tensor.ndim else tensor)
    return {name: torch.stack(tensors) for name, tensors in found.items()}


def _of_row(model: PreTrainedModel, ids: list[int], number: int, step: Fields) -> Parts:
    held: dict[str, Tensor] = {}
    hooks = [_PLACES[site[0]](model, site[1], held, _said(site)) for site in (each["site"] for each in step["sites"])]
    try:
        logits = model(torch.tensor([ids])).logits[0, step["metric"]["pos"]]
    finally:
        for hook in hooks:
            hook.remove()
    metric = _metric(logits, number, step["metric"])
    gradients = torch.autograd.grad(metric, [held[_said(each["site"])] for each in step["sites"]])
    found = {"metric": metric.detach().double()}
    for each, gradient in zip(step["sites"], gradients, strict=True):
        found[_said(each["site"])] = _FORMS[each["form"]](gradient[0], held[_said(each["site"])][0].detach())
    return found


def _metric(logits: Tensor, number: int, metric: Fields) -> Tensor:
    measure = _MEASURES[metric["measure"]]
    token = metric.get("token", 0)
    value = measure(logits, token if isinstance(token, int) else token[number])
    return value - measure(logits, metric["minus"]) if "minus" in metric else value


def _said(site: list[Any]) -> str:
    return f"{site[0]}({site[1]})"


def _given(path: str) -> Callable[..., Any]:
    """What a module of a layer is given."""

    def hook(model: PreTrainedModel, layer: int, held: dict[str, Tensor], name: str) -> Any:
        def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            held[name] = _differentiable(given[0])

        return _module(model, layer, path).register_forward_pre_hook(keep)

    return hook


def _gives(path: str) -> Callable[..., Any]:
    """What a module of a layer gives."""

    def hook(model: PreTrainedModel, layer: int, held: dict[str, Tensor], name: str) -> Any:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            held[name] = _differentiable(output[0] if isinstance(output, tuple) else output)

        return _module(model, layer, path).register_forward_hook(keep)

    return hook


def _differentiable(value: Tensor) -> Tensor:
    return value if value.requires_grad else value.requires_grad_()


def _module(model: PreTrainedModel, layer: int, path: str) -> nn.Module:
    found: nn.Module = model.get_submodule(f"transformer.h.{layer}.{path}".rstrip("."))
    return found


_PLACES: dict[str, Callable[..., Any]] = {
    "residual_in": _given(""),
    "residual_out": _gives(""),
    "residual_after_attn": _given("ln_2"),
    "attn_out": _gives("attn.c_proj"),
    "ffn_out": _gives("mlp.c_proj"),
}
