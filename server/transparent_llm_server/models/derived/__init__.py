"""The values of the contract, derived from what a forward pass left behind."""
