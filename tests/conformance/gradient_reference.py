"""Gradients by autograd of plain Hugging Face, row by row: of what a module of a GPT-2 gives or is given."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Fields = dict[str, Any]
Parts = dict[str, Tensor]
Change = tuple[list[Any], Callable[[Tensor], Tensor]]
"""A site, and what is made of what stands there."""

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


_EDITS: dict[str, Callable[[Tensor, Fields], Tensor]] = {
    "zero": lambda value, _: torch.zeros_like(value),
    "scale": lambda value, edit: value * edit["factor"],
    "add": lambda value, edit: value + edit.get("factor", 1.0) * numbers_of(edit["vector"]["literal"]),
}


def has_reference(step: Fields) -> bool:
    """Whether autograd of plain modules can answer it: no constants, no other run, of streams and branches; edits that
    put numbers there."""
    path = step.get("path", {"zero": True})
    sites = [*(each["site"] for each in step.get("sites", ())), path.get("site", ["residual_in", 0])]
    return (
        not {"frozen", "edges"} & step.keys()
        and "zero" in path
        and step["metric"]["measure"] in _MEASURES
        and all(site[0] in _PLACES for site in sites)
        and all(each["form"] in _FORMS for each in step.get("sites", ()))
        and all(edit["site"][0] in _EDITED and edit["op"] in _EDITS for edit in step.get("edits", ()))
    )


def parts(model: PreTrainedModel, rows: list[list[int]], step: Fields) -> Parts:
    """The tensors of an answer by their names; 0 at padding."""
    chosen = list(step.get("rows", range(len(rows))))
    n_pos = max(len(rows[row]) for row in chosen)
    found: dict[str, list[Tensor]] = {}
    answer = _path_of_row if "path" in step else _sites_of_row
    for number, row in enumerate(chosen):
        edits = [edit for edit in step.get("edits", ()) if edit["rows"] == "all" or row in edit["rows"]]
        for name, tensor in answer(model, rows[row], number, step, edits).items():
            padding = [0, 0] * (tensor.ndim - 1) + [0, n_pos - len(rows[row])]
            found.setdefault(name, []).append(nn.functional.pad(tensor, padding) if tensor.ndim else tensor)
    return {name: torch.stack(tensors) for name, tensors in found.items()}


def nodes_of(steps: int) -> list[tuple[float, float]]:
    """Nodes and weights of the Gauss-Legendre rule from 0 to 1."""
    rule = zip(*np.polynomial.legendre.leggauss(steps), strict=True)
    return [(float(node + 1) / 2, float(weight) / 2) for node, weight in rule]


def numbers_of(tensor: Fields) -> Tensor:
    """A tensor of a scenario, in single precision."""
    assert tensor["dtype"] == "F32"
    flat = torch.frombuffer(bytearray(base64.b64decode(tensor["data"])), dtype=torch.float32)
    return flat.reshape(tensor["shape"])


def _sites_of_row(model: PreTrainedModel, ids: list[int], number: int, step: Fields, edits: list[Fields]) -> Parts:
    held: dict[str, Tensor] = {}
    sites = [each["site"] for each in step["sites"]]
    changes = [*map(_edited, edits), *((site, partial(held.setdefault, _said(site))) for site in sites)]
    metric = metric_of(_logits(model, ids, changes, step["metric"]["pos"]), number, step["metric"])
    gradients = torch.autograd.grad(metric, [held[_said(site)] for site in sites])
    found = {"metric": metric.detach().double()}
    for each, gradient in zip(step["sites"], gradients, strict=True):
        found[_said(each["site"])] = _FORMS[each["form"]](gradient[0], held[_said(each["site"])][0].detach())
    return found


def _path_of_row(model: PreTrainedModel, ids: list[int], number: int, step: Fields, edits: list[Fields]) -> Parts:
    site, pos = step["path"].get("site", ["residual_in", 0]), step["metric"]["pos"]
    made, held = list(map(_edited, edits)), dict[str, Tensor]()
    keep = (site, partial(held.setdefault, "x"))
    metric = metric_of(_logits(model, ids, [*made, keep], pos), number, step["metric"]).detach().double()
    end = held["x"].detach()

    def at(node: float) -> tuple[Tensor, Tensor]:
        """The metric there, and its gradient."""
        put = (end * node).requires_grad_()
        found = metric_of(_logits(model, ids, [*made, (site, lambda _: put)], pos), number, step["metric"])
        return found.detach().double(), torch.autograd.grad(found, put)[0]

    baseline, _ = at(0.0)
    values = end * sum(weight * at(node)[1] for node, weight in nodes_of(step["path"]["steps"]))
    delta = values.double().sum() - (metric - baseline)
    return {"metric": metric, "baseline_metric": baseline, "delta": delta, "integrated_gradients": values[0]}


def _edited(edit: Fields) -> Change:
    """What an edit makes of what stands at its site [1 pos d_model]."""

    def change(value: Tensor) -> Tensor:
        n_pos = value.shape[1]
        given = {"all": range(n_pos), "last": [n_pos - 1]}.get(str(edit["positions"]), edit["positions"])
        chosen = torch.zeros(1, n_pos, 1, dtype=torch.bool)
        chosen[:, list(given)] = True
        return torch.where(chosen, _EDITS[edit["op"]](value, edit), value)

    return edit["site"], change


def _logits(model: PreTrainedModel, ids: list[int], changes: list[Change], pos: int) -> Tensor:
    """At a position, where these are made."""
    hooks = [_PLACES[site[0]](model, site[1], change) for site, change in changes]
    try:
        found: Tensor = model(torch.tensor([ids])).logits[0, pos]
    finally:
        for hook in hooks:
            hook.remove()
    return found


def metric_of(logits: Tensor, number: int, metric: Fields) -> Tensor:
    """Of the logits at a position, of the row with that number among those that are differentiated."""
    measure = _MEASURES[metric["measure"]]
    token = metric.get("token", 0)
    value = measure(logits, token if isinstance(token, int) else token[number])
    return value - measure(logits, metric["minus"]) if "minus" in metric else value


def _said(site: list[Any]) -> str:
    return f"{site[0]}({site[1]})"


def _given(path: str) -> Callable[..., Any]:
    """What a module of a layer is given."""

    def hook(model: PreTrainedModel, layer: int, change: Callable[[Tensor], Tensor]) -> Any:
        def replace(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return change(given[0]), *given[1:]

        return _module(model, layer, path).register_forward_pre_hook(replace)

    return hook


def _gives(path: str) -> Callable[..., Any]:
    """What a module of a layer gives."""

    def hook(model: PreTrainedModel, layer: int, change: Callable[[Tensor], Tensor]) -> Any:
        def replace(module: nn.Module, given: Any, output: Any) -> Any:
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        return _module(model, layer, path).register_forward_hook(replace)

    return hook


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
_EDITED = set(_PLACES) - {"residual_after_attn"}
"""Where the stream goes on with what a hook put there."""
