"""What analyses answer, by their definitions in float64 from plain Hugging Face values: nothing of them is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from conformance.analyses import arguments_of
from support.models.contributions import P, Row, contributions
from support.models.last_step import LastStepReference
from support.models.reference import HuggingFaceReference
from transparent_llm.wire.methods import METHODS

Parts = dict[str, Tensor]


class AnalysisReference:
    """Of the current run of a plain model, whose rows are not padded."""

    def __init__(self, model: PreTrainedModel, reference: HuggingFaceReference) -> None:
        self._llm, self._step = reference, LastStepReference(model)
        self._n_layers = reference.model_info().n_layers

    def parts(self, method: str, given: list[Any]) -> Parts:
        """The tensors of an analysis, by the names of its parts; under the method's own where it is one."""
        row = METHODS[method]
        names = row.argument_names
        arguments = dict(zip(names, arguments_of(method, given), strict=False))
        for parameter in row.parameters:
            arguments.setdefault(parameter.name, parameter.default)
        if "layer" in arguments:
            arguments["layer"] %= self._n_layers
        if "pos" in arguments:
            arguments["pos"] %= self._n_tokens()
        answer: Callable[..., Tensor | Parts] = getattr(self, f"_{method}")
        found = answer(**arguments)
        return {method: found} if isinstance(found, Tensor) else found

    def _n_tokens(self) -> int:
        return self._llm.tokens().shape[1]

    def _row(self, batch_i: int) -> Row:
        return Row(self._llm, batch_i, self._n_tokens())

    def _layer_lens(
        self,
        batch_i: int,
        layer: int,
        point: str,
        positions: tuple[int, ...],
        k: int,
        bottom_k: int,
        token_ids: tuple[int, ...],
        with_kl: bool,
        normalize: str,
        minus_layer: int | None = None,
        minus_point: str = "out",
    ) -> Parts:
        read = {"out": "residual_out", "in": "residual_in", "after_attn": "residual_after_attn"}
        stream = getattr(self._llm, read[point])(layer)[batch_i]
        if minus_layer is not None:
            stream = stream - getattr(self._llm, read[minus_point])(minus_layer)[batch_i]
        places = [pos % len(stream) for pos in positions] or list(range(len(stream)))
        assert normalize in ("own", "none")
        logits = torch.stack([self._llm.unembed(stream[pos], normalize == "own") for pos in places]).double()
        order = logits.argsort(dim=1, descending=True)
        p = logits.softmax(dim=1)
        asked = torch.tensor(token_ids, dtype=torch.int64)
        found = {
            "top_ids": order[:, :k],
            "top_logits": logits.gather(1, order[:, :k]),
            "bottom_ids": order.flip(1)[:, :bottom_k],
            "bottom_logits": logits.gather(1, order.flip(1)[:, :bottom_k]),
            "target_logits": logits[:, asked],
            "target_ranks": (logits[:, None, :] > logits[:, asked][:, :, None]).sum(dim=2),
            "logsumexp": logits.exp().sum(dim=1).log(),
            "entropy": -(p * p.log()).sum(dim=1),
        }
        if with_kl:
            q = self._llm.logits()[batch_i][places].double().softmax(dim=1)
            found["kl"] = (q * (q / p).log()).sum(dim=1)
        return found

    def _token_logprobs(self, batch_i: int) -> Parts:
        tokens = self._llm.tokens()[batch_i]
        logits = self._llm.logits()[batch_i, :-1].double()
        own = logits.gather(1, tokens[1:, None])
        logprobs = (own - logits.exp().sum(dim=1, keepdim=True).log())[:, 0]
        ranks = (logits > own).sum(dim=1)
        return {
            "logprobs": torch.cat([logprobs, torch.tensor([torch.nan])]),
            "ranks": torch.cat([ranks, torch.tensor([-1])]),
        }

    def _attn_contributions(self, batch_i: int, layer: int, norm: str) -> Parts:
        heads, residual = self._row(batch_i).attention(layer, norm)
        return {"heads": heads, "residual": residual}

    def _contribution_edges(self, batch_i: int, layer: int, threshold: float, renormalize: bool, norm: str) -> Parts:
        names = ("attention", "attention_residual", "ffn", "ffn_residual")
        least = threshold if renormalize else 0.0  # the sum of all is 1 as it is
        return dict(zip(names, self._row(batch_i).edges(layer, least, norm), strict=True))

    def _contribution_edges_to(
        self, batch_i: int, layer: int, targets: tuple[int, ...], threshold: float, renormalize: bool, norm: str
    ) -> Parts:
        places = [pos % self._n_tokens() for pos in targets] or list(range(self._n_tokens()))
        edges = self._contribution_edges(batch_i, layer, threshold, renormalize, norm)
        return {name: value[places] for name, value in edges.items()}

    def _neuron_contributions(self, batch_i: int, layer: int, pos: int, k: int, norm: str) -> Parts:
        before = self._llm.residual_after_attn(layer)[batch_i, pos]
        parts = torch.cat([self._llm.decomposed_ffn_out(batch_i, layer, pos), before[None]])
        shares = contributions(parts[None], self._llm.residual_out(layer)[batch_i, pos][None], P[norm])[0]
        order = shares[:-1].argsort(descending=True)[:k]
        return {"ids": order, "values": shares[order], "residual": shares[-1]}

    def _terms(self, parts: Tensor, batch_i: int, pos: int, token: int, minus_token: int | None) -> Tensor:
        residual = self._llm.residual_out(self._n_layers - 1)[batch_i, pos]
        terms = self._step.terms(parts, residual, token)
        return terms if minus_token is None else terms - self._step.terms(parts, residual, minus_token)

    def _logit_terms(self, batch_i: int, pos: int, token: int, minus_token: int | None = None) -> Parts:
        def of(name: str, layer: int) -> Tensor:
            value: Tensor = getattr(self._llm, name)(layer)[batch_i, pos]
            return value

        def difference(of_token: Callable[[int], float]) -> Tensor:
            whole = of_token(token) - (0.0 if minus_token is None else of_token(minus_token))
            return torch.tensor(whole, dtype=torch.float64)

        added = torch.stack([of("residual_out", at) - of("residual_in", at) for at in range(self._n_layers)])
        logits = self._llm.logits()[batch_i, pos].double()
        return {
            "logit": difference(lambda wanted: float(logits[wanted])),
            "embedding": self._terms(of("residual_in", 0), batch_i, pos, token, minus_token),
            "layers": self._terms(added, batch_i, pos, token, minus_token),
            "norm_bias": difference(self._step.norm_bias),
            "unembed_bias": difference(self._step.unembed_bias),
            "scale": torch.tensor(self._step.scale(of("residual_out", self._n_layers - 1)), dtype=torch.float64),
        }

    def _logit_attribution(
        self, batch_i: int, layer: int, pos: int, token: int, minus_token: int | None = None
    ) -> Parts:
        llm, at = self._llm, (batch_i, layer, pos)
        heads = torch.stack([llm.attention_output(*at, head) for head in range(llm.model_info().n_heads)])
        parts = {
            "heads": heads,
            "attn_bias": llm.attention_bias(*at),
            "ffn": llm.ffn_out(layer)[batch_i, pos],
            "ffn_bias": llm.ffn_bias(*at),
        }
        return {name: self._terms(part, batch_i, pos, token, minus_token) for name, part in parts.items()}

    def _source_attribution(
        self, batch_i: int, layer: int, pos: int, token: int, minus_token: int | None = None
    ) -> Tensor:
        return self._terms(self._llm.decomposed_attn(batch_i, layer)[pos], batch_i, pos, token, minus_token).T

    def _neuron_attribution(
        self, batch_i: int, layer: int, pos: int, token: int, k: int, minus_token: int | None = None
    ) -> Parts:
        terms = self._terms(self._llm.decomposed_ffn_out(batch_i, layer, pos), batch_i, pos, token, minus_token)
        order = terms.abs().argsort(descending=True)
        return {"ids": order[:k], "values": terms[order[:k]], "rest": terms[order[k:]].sum()}

    def _attention_matrices(self, batch_i: int, layer: int) -> Tensor:
        heads = range(self._llm.model_info().n_heads)
        return torch.stack([self._llm.attention_matrix(batch_i, layer, head) for head in heads])

    def _head_scores(self, batch_i: int, layer: int, kind: str) -> Tensor:
        tokens = self._llm.tokens()[batch_i].tolist()
        return torch.stack([_score(kind, head, tokens) for head in self._attention_matrices(batch_i, layer).double()])

    def _value_weighted_norms(self, batch_i: int, layer: int) -> Tensor:
        return self._llm.decomposed_attn(batch_i, layer).double().norm(dim=-1).permute(2, 0, 1)


def _score(kind: str, pattern: Tensor, tokens: list[int]) -> Tensor:
    if kind == "entropy":
        return -torch.where(pattern > 0, pattern * pattern.log(), 0.0).sum(dim=1).mean()
    paid = [row[keys].sum() for query, row in enumerate(pattern) if (keys := _keys(kind, tokens, query))]
    return torch.stack(paid).mean() if paid else torch.zeros((), dtype=torch.float64)


def _keys(kind: str, tokens: list[int], query: int) -> list[int]:
    earlier = [key for key in range(query) if tokens[key] == tokens[query]]
    return {
        "previous": [query - 1] if query else [],
        "first": [0],
        "self": [query],
        "duplicate": earlier,
        "induction": [key + 1 for key in earlier],
    }[kind]
