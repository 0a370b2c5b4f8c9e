"""Analyses of a run: small tensors, computed where the weights are, from the contract and torch alone."""
