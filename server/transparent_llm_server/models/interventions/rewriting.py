"""Edits on the way of a forward pass: what becomes of the tensors that pass the taps of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from transparent_llm.errors import NotSupportedError
from transparent_llm.interventions import EditEffect, Intervention
from transparent_llm.interventions.site import SiteKind
from transparent_llm_server.models.forward.batch import Batch
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.neurons import ExpertNeurons
from transparent_llm_server.models.forward.passes import Rewrites
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.edit import Edit, all_made, together
from transparent_llm_server.models.interventions.layer_edits import EditsOfLayer
from transparent_llm_server.models.interventions.multiplied import require_few_runs
from transparent_llm_server.models.interventions.operations import function_of
from transparent_llm_server.models.interventions.selection import require_few_places, select
from transparent_llm_server.models.interventions.sites import checked_site
from transparent_llm_server.models.interventions.sources import Sources


class Edits:
    """Of one run, checked against the model and the lengths of its rows.

    Raises:
        IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
        NotSupportedError: the model has nothing at a site.
        InvalidRequestError: nothing is selected, or a source is of another model.
        TooLargeError: too many places are selected, or runs that queries and keys are taken from.
    """

    def __init__(self, model: BridgedModel, edits: Sequence[Intervention], lengths: Sequence[int]) -> None:
        require_few_places(edits, lengths)
        require_few_runs(edits)
        self._model, sources = model, Sources(model)
        self._n_pos = max(lengths, default=0)
        self._edits = [checked_edit(model, edit, lengths, sources) for edit in edits]
        self._made: list[Sequence[Edit]] = []

    @property
    def effects(self) -> tuple[EditEffect, ...]:
        """What each did, in the order in which they were given. After all passes."""
        found = (
            [each.effect for each in of_edit if each.effect is not None] for of_edit in zip(*self._made, strict=True)
        )
        return tuple(together(effects) for effects in found)

    def run(self, batch: Batch) -> Capture:
        """Run the batch, rows that cannot share a pass in passes of their own."""
        parts = batch.split(self._model.regimes)
        if len(parts) == 1:
            return self._passed(batch, EditedPass(self._model, self._edits))
        if any(isinstance(self._model.layers[edit.site.layer].neurons, ExpertNeurons) for edit in self._of_neurons):
            raise NotSupportedError(
                f"rows of {sorted(set(batch.lengths))} tokens have passes of their own in this model: edit neurons of "
                "experts in rows that share one"
            )
        passes = []
        for rows, part in parts:
            edits = [edit.within(rows, part.tokens.shape[1], self._n_pos) for edit in self._edits]
            passes.append((rows, self._passed(part, EditedPass(self._model, edits, keeps=True))))
        self._model.edits.require_unchanged(passes[0][1].generation)  # nobody has changed the model between them
        return Capture.of_passes(batch.tokens, batch.mask, passes)

    @property
    def _of_neurons(self) -> list[Edit]:
        return [edit for edit in self._edits if edit.site.kind is SiteKind.NEURONS]

    def _passed(self, batch: Batch, edited: EditedPass) -> Capture:
        self._made.append(edited.edits)
        capture = self._model.forward(batch.tokens, batch.mask, edited.rewrites(batch.tokens.shape))
        scale = edited.final_scale(capture.residual_out)
        return capture if scale is None else replace(capture, final_scale=scale)


def checked_edit(model: BridgedModel, edit: Intervention, lengths: Sequence[int], sources: Sources) -> Edit:
    """An edit of a run whose rows have so many tokens, its sources looked up now. Raises: as `Edits`."""
    site, selected = checked_site(model, edit.site), select(edit, lengths)
    return Edit(edit, site, selected, function_of(edit, site, selected, sources))


@dataclass(frozen=True)
class EditedPass:
    """One forward pass with edits that were checked."""

    model: BridgedModel
    edits: Sequence[Edit]
    keeps: bool = False
    """Also what did not change, as another pass has it too."""

    after: Rewrites = field(default_factory=dict)
    """What becomes of tensors after their edits. That of a pattern is given the pattern, and gives another one;
    "attn_added" is what attention adds after the edits of the stream between the branches."""

    def rewrites(self, batch_pos: Sequence[int]) -> Rewrites:
        """What becomes of the tensors of a pass of so many rows and positions."""
        found: dict[Passing, Rewrite] = {}
        for i, layer in enumerate(self.model.layers):
            of_layer = [edit for edit in self.edits if edit.site.layer == i]
            after = {passing.field: rewrite for passing, rewrite in self.after.items() if passing.layer == i}
            found |= EditsOfLayer(layer, i, tuple(batch_pos), of_layer, self.keeps, after).rewrites()
        return found

    def final_scale(self, residual_out: torch.Tensor) -> torch.Tensor | None:
        """What the final norm divides by [batch pos 1], if not what it would; of the stream as it leaves the blocks."""
        final = [edit for edit in self.edits if edit.site.kind is SiteKind.FINAL_NORM_SCALE]
        norm = self.model.final_norm
        if not final or norm is None:
            return None
        own = norm.scale(residual_out)
        scale = all_made(final, own)
        return None if scale is own and not self.keeps else scale
