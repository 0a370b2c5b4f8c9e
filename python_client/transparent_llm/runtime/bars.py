"""tqdm: a bar of the notebook where that has widgets, and text everywhere else, which is no reason to warn."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "IProgress not found", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
