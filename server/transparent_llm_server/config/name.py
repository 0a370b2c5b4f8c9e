"""What operators may call what they offer."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Of a sparse autoencoder, or a data set."""
