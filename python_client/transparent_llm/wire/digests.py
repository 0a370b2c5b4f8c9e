"""Names of models by their content, as servers tell them: 64 hexadecimal digits, and nothing that could be a path."""

from __future__ import annotations

import re

from transparent_llm.errors import InternalError

DIGEST = re.compile("[0-9a-f]{64}")
"""SHA-256, in lower case."""


def checked(digest: str) -> str:
    """What a server says is a model's digest.

    Raises:
        InternalError: it is none.
    """
    if not DIGEST.fullmatch(digest):
        raise InternalError(f"the server's digest of a model is {digest[:80]!r}, not 64 hexadecimal digits")
    return digest
