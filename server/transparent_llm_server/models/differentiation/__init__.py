"""Gradients of a number of each row, by tensors on the way of a pass that keeps its graph."""
