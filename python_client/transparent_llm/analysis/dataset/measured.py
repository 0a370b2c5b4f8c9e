"""What is measured at each place of a data set: neurons of a layer, lengths of what heads write, or directions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from transparent_llm.analysis.dataset.site import Site
from transparent_llm.analysis.rows import layer_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted
from transparent_llm.runtime.indexing import checked_index, integer
from transparent_llm.runtime.numerics import wide

NEURONS, HEADS = "neurons", "heads"


@dataclass(frozen=True)
class Measured:
    """Some numbers of each place."""

    kind: str
    """What one of them is of: "neuron", "head" or "direction"."""

    layer: int | None
    """Of neurons and heads."""

    sites: tuple[Site, ...]
    """What is read."""

    items: tuple[int, ...] | None
    """Which of them. None: all."""

    directions: torch.Tensor | None
    """[item d_model], of length 1."""

    @classmethod
    def of(cls, llm: TransparentLlm, site: object, items: Iterable[int] | None, directions: object) -> Measured:
        """As a caller writes it.

        Raises:
            InvalidRequestError: there is no such site, or what goes along with it is missing or makes no sense.
            IndexOutOfRangeError: no such layer or head.
        """
        chosen = None if items is None else tuple(integer("items", item) for item in items)
        if chosen is not None and len({*chosen}) < max(1, len(chosen)):
            raise InvalidRequestError("items must be some different ones; leave it out for all")
        if isinstance(site, tuple) and len(site) == 2 and site[0] in (NEURONS, HEADS):
            if directions is not None:
                raise InvalidRequestError(f"{site[0]} are no residual site: directions go with one")
            layer = layer_of(llm, site[1])
            if site[0] == NEURONS:
                return cls("neuron", layer, (Site.of(("neuron_activations", layer)),), chosen, None)
            n_heads = llm.model_info().n_heads
            heads = tuple(checked_index("head", head, n_heads) for head in chosen or range(n_heads))
            return cls("head", layer, tuple(Site.of(("attention_output", layer, head)) for head in heads), heads, None)
        if directions is None:
            raise InvalidRequestError(
                f'{quoted(repr(site))} is none of ("neurons", LAYER) and ("heads", LAYER); of a residual site such as '
                '("residual_out", LAYER) give directions'
            )
        if chosen is not None:
            raise InvalidRequestError("items are of neurons and heads: leave directions out that you do not want")
        return cls("direction", None, (Site.of(site),), None, _directions(llm, directions))  # type: ignore[arg-type]  # says what it takes

    @property
    def title(self) -> str:
        """For people."""
        if self.kind == "neuron":
            return f"neurons of layer {self.layer}"
        return f"heads of layer {self.layer}, by length of output" if self.kind == "head" else f"{self.sites[0].name}"

    def recipe(self) -> dict[str, object]:
        """What tells it from all others, as JSON has it; many numbers by their hash."""
        rows = self.directions
        return {
            "sites": [site.name for site in self.sites] if self.kind != "head" else f"heads of layer {self.layer}",
            "items": None if self.items is None else _named(self.items),
            "directions": None if rows is None else hashlib.sha256(rows.contiguous().numpy().data).hexdigest(),
        }

    def values(self, found: Mapping[str, torch.Tensor]) -> tuple[tuple[int, ...], Float[torch.Tensor, "row item"]]:
        """Of what was read: numbers of items, and their values in float32 at least.

        Raises:
            IndexOutOfRangeError: no such neuron.
            InvalidRequestError: what was read are no vectors as long as the directions.
        """
        read = [wide(found[site.name]) for site in self.sites]
        if self.kind == "head":
            return self.items or (), torch.stack([vectors.norm(dim=-1) for vectors in read], dim=1)
        if self.directions is None:
            n = read[0].shape[1]
            if self.items is None:
                return tuple(range(n)), read[0]
            chosen = tuple(checked_index("neuron", item, n) for item in self.items)
            return chosen, read[0][:, list(chosen)]
        if read[0].ndim != 2 or read[0].shape[1] != self.directions.shape[1]:
            raise InvalidRequestError(
                f"{self.sites[0].name} has values {list(read[0].shape[1:])}, no vectors as long as the directions, "
                f"[{self.directions.shape[1]}]"
            )
        products: torch.Tensor = read[0] @ self.directions.to(read[0]).T
        return tuple(range(len(self.directions))), products

    def output(self, llm: TransparentLlm, number: int) -> torch.Tensor | None:
        """The vector that an item stands for in the residual stream, if it stands for one."""
        if self.directions is not None:
            return self.directions[number]
        return llm.neuron_output(self.layer, number) if self.kind == "neuron" and self.layer is not None else None


def _named(items: tuple[int, ...]) -> str:
    text = ",".join(map(str, items))
    return text if len(items) <= 20 else f"{len(items)} with SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"


def _directions(llm: TransparentLlm, given: Any) -> torch.Tensor:
    """[n d_model], each of length 1."""
    d_model = llm.model_info().d_model
    tensor = given if isinstance(given, torch.Tensor) else torch.empty(0)
    rows = wide(tensor.detach().cpu())[None] if tensor.ndim == 1 else wide(tensor.detach().cpu())
    if rows.ndim != 2 or rows.shape[1] != d_model or not len(rows) or not tensor.is_floating_point():
        raise InvalidRequestError(
            f"directions are a floating tensor [{d_model}] or [n {d_model}], got {tensor.dtype} {list(tensor.shape)}"
        )
    lengths = rows.norm(dim=1, keepdim=True)
    if not bool((torch.isfinite(lengths) & (lengths > 0)).all()):
        raise InvalidRequestError("directions have finite lengths above 0; one has not")
    return torch.div(rows, lengths)
