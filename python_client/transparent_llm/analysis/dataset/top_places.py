"""The places of a data set where each of some numbers is largest: a few of each, found as the data set passes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.dataset.rows import Rows

_PLACES_AT_ONCE = 2**22
"""That are sorted, of all items together."""

NOTHING = -1
"""In the place of a sentence, a position or a token where there is none."""


class TopPlaces:
    """Keeps `k` places for each item, in falling order of its values; of equal ones the first in the data set.

    Args:
        n_items: How many numbers each place has.
        k: How many places are kept of each.
        context: How many neighbours on each side are kept with a place.
        once_per_sentence: Of each sentence only the place where an item is largest, the first of equal ones.
    """

    def __init__(self, n_items: int, k: int, context: int, *, once_per_sentence: bool) -> None:
        self._once_per_sentence, self._context = once_per_sentence, context
        around = (n_items, k, 2 * context + 1)
        self.values = torch.full((n_items, k), -torch.inf)
        """[item rank] float32; -inf where there is no place."""

        self.sentences = torch.full((n_items, k), NOTHING)
        """[item rank]"""

        self.positions = torch.full((n_items, k), NOTHING)
        """[item rank]"""

        self.tokens = torch.full(around, NOTHING)
        """[item rank neighbour] of each place and its neighbours, itself in the middle."""

        self.around = torch.full(around, torch.nan)
        """[item rank neighbour] the item's values there."""

    def add(self, values: Float[torch.Tensor, "row item"], rows: Rows) -> None:
        """Those of the next sentences, all positions of each. NaN is never large."""
        assert rows.pos is not None
        assert rows.token is not None
        starts = (rows.pos == 0).nonzero().flatten()
        ends = torch.cat([starts[1:], torch.tensor([len(values)])])
        found = values.float()
        comparable = found.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        if self._once_per_sentence:
            peaks = [
                comparable[start:end].max(dim=0) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            ]
            best = torch.stack([peak.values for peak in peaks])
            at = torch.stack([peak.indices for peak in peaks]) + starts[:, None]
        else:
            best, at = comparable, torch.arange(len(values))[:, None].expand(values.shape)
        (changed,) = (best.amax(dim=0) > self.values[:, -1]).nonzero(as_tuple=True)
        for items in torch.split(changed, max(1, _PLACES_AT_ONCE // len(best))):
            self._merge(items, best[:, items].T, at[:, items].T, found, rows, starts, ends)

    def _merge(
        self,
        items: Int[torch.Tensor, "item"],
        values: Float[torch.Tensor, "item place"],
        at: Int[torch.Tensor, "item place"],
        found: Float[torch.Tensor, "row all_items"],
        rows: Rows,
        starts: Int[torch.Tensor, "sentence"],
        ends: Int[torch.Tensor, "sentence"],
    ) -> None:
        assert rows.pos is not None
        assert rows.token is not None
        k = n_before = self.values.shape[1]
        together = torch.cat([self.values[items], values], dim=1)
        order = together.sort(dim=1, descending=True, stable=True).indices[:, :k]
        kept = together.gather(1, order)
        is_new = (order >= n_before) & (kept > -torch.inf)
        row = at.gather(1, (order - n_before).clamp(min=0))
        offsets = torch.arange(-self._context, self._context + 1)
        near = row[..., None] + offsets
        sentence = torch.searchsorted(starts, row, right=True) - 1
        is_there = (near >= starts[sentence][..., None]) & (near < ends[sentence][..., None])
        near = near.clamp(0, len(found) - 1)
        tokens = torch.where(is_there, rows.token[near], NOTHING)
        around = torch.where(is_there, found[near, items[:, None, None].expand(near.shape)], torch.nan)
        old = order.clamp(max=n_before - 1)
        self.values[items] = kept
        for held, new in ((self.sentences, rows.sentence[row]), (self.positions, rows.pos[row])):
            held[items] = torch.where(is_new, new, held[items].gather(1, old))
        for held, new in ((self.tokens, tokens), (self.around, around)):
            of_old = held[items].gather(1, old[..., None].expand(near.shape))
            held[items] = torch.where(is_new[..., None], new, of_old)
        nothing = kept == -torch.inf
        for held in (self.sentences, self.positions):
            held[items] = torch.where(nothing, NOTHING, held[items])
