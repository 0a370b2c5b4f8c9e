"""What names the edits of a run: the same edits, however they are written, of the same rows give the same words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.interventions import Intervention, Site, Vector
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.interventions.vector import Literal, SaeFeature
from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.interventions.multiplied import require_few_runs
from transparent_llm_server.models.interventions.selection import require_few_places, select
from transparent_llm_server.models.interventions.sites import checked_site
from transparent_llm_server.models.interventions.sources import numbers_of

_VERSION = 1
"""Of what operations mean: another one names other runs."""

Named = Callable[[TransparentLlm], str]


def identity(model: BridgedModel, edits: Sequence[Intervention], lengths: Sequence[int], run_id_of: Named) -> str:
    """Sites and selectors as indices from the beginning, floats by their bits, literal numbers by their SHA-256, other
    runs by their ids.

    Raises:
        IndexOutOfRangeError: a layer, head, neuron, row or position that is not there.
        NotSupportedError: the model has nothing at a site.
        InvalidRequestError: nothing is selected.
        TooLargeError: too many places are, or runs that queries and keys are taken from.
    """
    require_few_places(edits, lengths)
    require_few_runs(edits)
    named = [_named(model, edit, lengths, run_id_of) for edit in edits]
    return json.dumps([_VERSION, named], separators=(",", ":"))


def _named(model: BridgedModel, edit: Intervention, lengths: Sequence[int], run_id_of: Named) -> list[object]:
    selected = select(edit, lengths)
    operation: list[object] = [type(edit.operation).__name__]
    for field in dataclasses.fields(edit.operation):  # type: ignore[arg-type]  # all operations are
        operation.append(_words(model, getattr(edit.operation, field.name), run_id_of))
    return [_site(model, edit.site), selected.rows, selected.positions, operation]


def _site(model: BridgedModel, site: Site) -> list[object]:
    checked = checked_site(model, site)
    return [checked.kind.value, checked.layer, checked.head, checked.neurons]


def _words(model: BridgedModel, value: object, run_id_of: Named) -> object:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Literal | KeptVector):
        return _numbers(numbers_of(value))
    if isinstance(value, Site):
        return _site(model, value)
    if isinstance(value, TransparentLlm):
        return run_id_of(value)
    if isinstance(value, SaeFeature):
        sae = model.saes.get(value.sae)
        feature = checked_index("feature", value.feature, sae.n_features)
        return ["SaeFeature", sae.digest, feature, value.direction]
    if isinstance(value, Vector):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]  # all vectors are
        parts = [_words(model, getattr(value, field.name), run_id_of) for field in fields]
        return [type(value).__name__, *parts]
    return value


def _numbers(values: torch.Tensor) -> str:
    raw = values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{values.dtype} {list(values.shape)} {hashlib.sha256(raw).hexdigest()}"
