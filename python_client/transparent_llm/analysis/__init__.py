"""Analyses: small answers computed of a run's values, next to the weights where a server has them.

Each function reads the contract and gives tensors of one layer or one row; grids and graphs are put together of those.
"""
