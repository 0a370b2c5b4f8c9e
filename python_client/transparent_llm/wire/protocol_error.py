"""An answer that no server of this protocol gives."""

from __future__ import annotations


class ProtocolError(Exception):
    """The peer is broken, lies, or speaks another protocol. Whoever knows the peer's name tells the user."""
