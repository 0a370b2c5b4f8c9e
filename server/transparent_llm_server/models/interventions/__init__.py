"""Edits of a run: selectors made indices, sources made tensors, and both put on the way of a forward pass."""
