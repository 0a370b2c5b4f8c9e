"""An edge of a contribution graph, with the names of the nodes at its ends."""

from __future__ import annotations

from typing import NamedTuple


class Edge(NamedTuple):
    """Nodes are named X0_3 (token 3 as it is embedded), A1_3 (the stream at position 3 after layer 1's attention), M1_3
    (what its feed-forward part reads and adds there) and I1_3 (the stream as it leaves layer 1)."""

    source: str
    target: str
    weight: float
    """The contribution; in a difference, how much it is larger."""

    kind: str
    """"attention": from another position. "residual": from the same one, with what it attends to itself.
    "ffn": to and from M. "ffn_residual": past it."""

    layer: int
    source_pos: int
    target_pos: int
