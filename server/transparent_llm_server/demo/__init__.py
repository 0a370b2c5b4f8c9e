"""The embedded default model: a small GPT-2 with real induction heads. See model/README.md, its card."""

from pathlib import Path

DEMO_MODEL = Path(__file__).parent / "model"
"""Folder with configuration, weights and tokenizer."""
