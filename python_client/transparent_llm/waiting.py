"""How the threads of a server wait for work: asleep. OpenMP's default is to spin for a while after each kernel, which
takes the cores from whoever shares them. It is read once, when torch is loaded: this is imported before torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PROGRAMS = ("transparent-llm", "-m", "__main__.py")
"""What the command may be called while this package is loaded for it; `-m` as long as Python looks for the module."""

if Path(sys.argv[0]).name in _PROGRAMS and sys.argv[1:2] == ["serve"]:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
